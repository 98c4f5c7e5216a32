"""What a machine's certificates are made out to, by the role's own variables: a real handshake under every name."""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import ssl
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.ansible_module import MODULES, run_module
from tests.unit.ansible.rendering import evaluate

Json = Any
# Two networks: machines speak to each other over one, people and Ansible come over the other.
OVERLAY = {"one": "198.51.100.11", "two": "198.51.100.12"}
UNDERLAY = {"one": "192.0.2.11", "two": "192.0.2.12"}
SHARED = "gateway.roost.internal"


def decided(folder: Path, names: Collection[str] = tuple(OVERLAY), **variables: object) -> dict[str, dict[str, Json]]:
    """Return the role's leaves and copies for each of the machines, as Ansible computes them."""
    entries = {
        name: {
            "ansible_connection": "local", "ansible_host": UNDERLAY[name], "hardware_node_address": OVERLAY[name],
            "hardware_host": {"hostname": name, "default_address": UNDERLAY[name]}, **variables,
        }
        for name in names
    }  # fmt: skip
    wanted = "{'leaves': certificates_leaves, 'copies': certificates_copies}"
    return evaluate(folder, ["certificates"], wanted, entries)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Json]]:
    return decided(tmp_path_factory.mktemp("names"), gateway_replicas=1)


def handshake(cert: Path, key: Path, ca: Path, name: str) -> str:
    """Connect to a server with a certificate as a client that knows the authority; return what it says of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            # Where the client hangs up, what it says of it is what counts.
            with connection, contextlib.suppress(ssl.SSLError, ConnectionError):
                context.wrap_socket(connection, server_side=True).close()

        server = threading.Thread(target=answer)
        server.start()
        try:
            with socket.create_connection(listening.getsockname(), timeout=10) as plain:
                ssl.create_default_context(cafile=str(ca)).wrap_socket(plain, server_hostname=name).close()
        except ssl.SSLCertVerificationError as error:
            return str(error.verify_message)
        finally:
            server.join(10)
    return "valid"


@pytest.mark.parametrize("name", list(OVERLAY))
def test_a_gateway_is_known_by_every_name_of_its_machine_and_no_other(
    tmp_path: Path, machines: dict[str, dict[str, Json]], name: str
) -> None:
    ensure_pki(tmp_path, [LeafSpec("api", tuple(machines[name]["leaves"]["api"]))])
    pair = tmp_path / "api.pem", tmp_path / "api-key.pem", tmp_path / "ca.pem"
    for own in (name, OVERLAY[name], UNDERLAY[name], SHARED):
        assert handshake(*pair, own) == "valid", own
    other = next(machine for machine in OVERLAY if machine != name)
    for foreign in (other, OVERLAY[other], UNDERLAY[other]):
        assert "mismatch" in handshake(*pair, foreign), foreign


@pytest.mark.parametrize("variables", [{}, {"api_listen_cert": "/etc/ssl/own.pem"}], ids=["one gateway", "own"])
def test_where_nomad_finds_a_place_for_a_gateway_its_certificate_is_there_before_gateways_are_wanted(
    tmp_path: Path, variables: dict[str, Any]
) -> None:
    found = decided(tmp_path, gateway_replicas=0, **variables)
    for name, machine in found.items():
        assert OVERLAY[name] in machine["leaves"]["api"]
        assert "api" in [copy["leaf"] for copy in machine["copies"]]


def test_a_machine_alone_makes_such_a_certificate_only_where_it_listens_and_names_none(tmp_path: Path) -> None:
    for number, (variables, made) in enumerate([
        ({}, False), ({"api_listen_address": "192.0.2.11"}, True),
        ({"api_listen_address": "192.0.2.11", "api_listen_cert": "/etc/ssl/own.pem"}, False),
    ]):  # fmt: skip
        (folder := tmp_path / str(number)).mkdir()
        found = decided(folder, names=["one"], **variables)
        assert ("api" in found["one"]["leaves"]) == made, variables


def test_the_gateways_user_gets_the_pair_and_a_second_run_changes_nothing(
    tmp_path: Path, machines: dict[str, dict[str, Json]]
) -> None:
    folder = tmp_path / "gateway-tls"
    assert [copy["leaf"] for copy in machines["two"]["copies"]] == ["engine", "api"]
    arguments = {
        "tls_dir": str(tmp_path / "tls"), "secrets_dir": str(tmp_path / "secrets"),
        "leaves": {"api": machines["two"]["leaves"]["api"]},
        "copies": [
            {"leaf": "api", "folder": str(folder), "uid": os.getuid()},
            {"leaf": "engine", "folder": str(tmp_path / "engine"), "uid": os.getuid()},
        ],
    }  # fmt: skip
    for made in ("tls", "secrets"):
        (tmp_path / made).mkdir()
    assert "api files" in run_module("roost_pki", arguments)["made"]
    assert (folder / "cert.pem").read_bytes() == (tmp_path / "tls/api.pem").read_bytes()
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o400
    assert not (tmp_path / "engine").exists(), "there is no such leaf"
    assert not run_module("roost_pki", arguments)["changed"]
    (folder / "cert.pem").unlink()
    assert run_module("roost_pki", arguments)["made"] == ["api files"]


def test_a_copy_that_a_run_ended_before_its_user_could_read_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("api.pem", "api-key.pem"):
        (tmp_path / name).write_text(name)
    folder, uid = tmp_path / "gateway-tls", os.getuid() + 1
    copy = {"leaf": "api", "folder": folder, "uid": uid}
    params = {"tls_dir": str(tmp_path), "leaves": {"api": []}, "copies": [copy]}
    given: list[tuple[str, int]] = []

    def give(handle: int, owner: int, _group: int) -> None:
        given.append((Path(f"/proc/self/fd/{handle}").readlink().name, owner))

    # What is written stays this user's, as after a run that was ended.
    monkeypatch.setattr(os, "fchown", give)
    copied = runpy.run_path(str(MODULES / "roost_pki.py"))["copied"]
    for _ in range(2):
        assert copied(params, dry_run=True) == ["api files"]
        assert copied(params, dry_run=False) == ["api files"]
    assert {owner for _, owner in given} == {uid}
    assert not {"key.pem", "cert.pem"} & {name for name, _ in given}, "nobody finds one that its user cannot read"
    mine = {**params, "copies": [{**copy, "uid": os.getuid()}]}
    assert copied(mine, dry_run=False) == []
