"""A machine joins: over real TLS on loopback, with a real authority; only the set-up is made up."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from roost.fleet.join import guest, reception
from roost.fleet.join.messages import leaves_of, parse
from roost.fleet.join.reception import Reception, serve
from roost.fleet.join.ssh import Controller
from roost.fleet.join.store import Store
from roost.fleet.join.token import Token
from roost.ops.authority import Authority
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.ownership import Manifest
from roost.ops.pki import LeafSpec, leaf_is_good, load_authority

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"


@dataclass
class Office:
    """A controller on loopback, and what it did."""

    folder: Path
    clock: float = 1000.0
    admitted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fails: bool = False
    taken: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        self.authority = Authority(self.folder / "tls", self.folder / "secrets")
        self.authority.ensure()
        self.store = Store(self.authority.secrets_dir)
        self.reception = Reception(
            self.store, self.authority, Controller(self.authority.secrets_dir), "one", "global", "127.0.0.1",
            self.check, self.admit, clock=lambda: self.clock,
        )  # fmt: skip

    def check(self, name: str) -> None:
        if name == self.taken:
            raise RoostError(f"{name} is in the inventory already.")

    def admit(self, name: str, entry: dict[str, Any]) -> Iterator[str]:
        self.admitted.append((name, entry))
        yield "setting it up"
        if self.fails:
            raise RoostError("Its disk is full.", fix="Free space.", exit_code=3)

    def token(self, *, ttl: float = 60.0) -> Token:
        ca, _ = load_authority(self.authority.tls_dir)
        made = Token.new(ca.public_bytes(serialization.Encoding.DER), self.port)
        self.store.add(made, expires=self.clock + ttl, now=self.clock)
        return made

    @contextmanager
    def open(self) -> Iterator[None]:
        """Receive for the length of a block."""
        ready = threading.Event()
        keep = self.token(ttl=1e9)

        def told(port: int) -> None:
            self.port = port
            ready.set()

        thread = threading.Thread(target=serve, args=(self.reception, ("127.0.0.1", 0), told))
        thread.start()
        assert ready.wait(30)
        try:
            yield
        finally:
            self.store.use(keep.number, keep.secret, "the test", self.clock)
            self.clock += 1e10
            thread.join(30)
            assert not thread.is_alive(), "it goes on although no token is open"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path / "office")
    with made.open():
        yield made


@pytest.fixture
def machine(tmp_path: Path) -> guest.Machine:
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "machine"
    return guest.Machine("two", folder / "tls", folder / "secrets", Manifest(tmp_path / "state/manifest"), home)


def join(token: Token, machine: guest.Machine, said: list[str] | None = None, **more: Any) -> str:  # noqa: ANN401
    lines: list[str] = [] if said is None else said
    return guest.join("127.0.0.1", token, machine, [KEY], more.get("environment", {}), lines.append)


def test_a_machine_joins(office: Office, machine: guest.Machine) -> None:
    said: list[str] = []
    proxy = {"https_proxy": "http://192.0.2.1:3128", "SECRET": "x"}
    assert join(office.token(), machine, said, environment=proxy) == "one"
    assert "setting it up" in said
    (name, entry) = office.admitted[0]
    assert name == "two"
    assert (entry["ansible_host"], entry["node_address"]) == ("127.0.0.1", "127.0.0.1")
    assert entry["node_environment"] == {"https_proxy": "http://192.0.2.1:3128"}
    ca, _ = load_authority(office.authority.tls_dir)
    node = LeafSpec("node", ("client.global.nomad", "localhost", "127.0.0.1", "127.0.0.1"))
    assert leaf_is_good(machine.tls_dir / "node.pem", node, ca)
    assert leaf_is_good(machine.tls_dir / "engine.pem", LeafSpec("engine", ("127.0.0.1", "two")), ca)
    assert (machine.tls_dir / "node-key.pem").stat().st_mode & 0o777 == 0o600
    assert list(machine.secrets_dir.iterdir()) == []
    known = (office.authority.secrets_dir / "fleet-known-hosts").read_text()
    assert known == f"127.0.0.1 {KEY}\n"
    line = (machine.home / ".ssh/authorized_keys").read_text()
    assert line.startswith('restrict,pty,from="127.0.0.1" ssh-ed25519 ')
    assert line.endswith(" roost-fleet\n")
    assert str(machine.tls_dir) in machine.manifest.owned("path")


def test_no_private_key_leaves_the_machine(
    office: Office, machine: guest.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    ask = guest._ask

    def listening(*args: Any) -> Any:  # noqa: ANN401 (passes on whatever it is given)
        sent.append(json.dumps(args))
        return ask(*args)

    monkeypatch.setattr(guest, "_ask", listening)
    join(office.token(), machine)
    keys = [path.read_text().splitlines()[1:-1] for path in machine.tls_dir.glob("*-key.pem")]
    assert len(keys) == 3
    assert all(line not in "".join(sent) for lines in keys for line in lines)
    assert "PRIVATE" not in "".join(sent)


def test_a_token_of_a_release_that_made_them_for_servers_gives_nothing_that_servers_hold(
    office: Office, machine: guest.Machine
) -> None:
    token = office.token()
    kept = office.authority.secrets_dir / "join-tokens.json"
    write_atomic(kept, json.dumps([entry | {"server": True} for entry in json.loads(kept.read_text())]), mode=0o600)
    join(token, machine)
    assert list(machine.secrets_dir.iterdir()) == []
    certificate = x509.load_pem_x509_certificate((machine.tls_dir / "node.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "server.global.nomad" not in names.get_values_for_type(x509.DNSName)


def test_a_token_is_good_once(office: Office, machine: guest.Machine) -> None:
    token = office.token()
    join(token, machine)
    with pytest.raises(RoostError, match="used already, by two"):
        join(token, machine)
    assert len(office.admitted) == 1


def test_of_many_at_once_one_is_let_in(office: Office) -> None:
    token = office.token()
    results: list[bool] = []

    def use() -> None:
        try:
            office.store.use(token.number, token.secret, "two", office.clock)
        except RoostError:
            results.append(False)
        else:
            results.append(True)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]


def test_a_token_ends(office: Office, machine: guest.Machine) -> None:
    token = office.token(ttl=10)
    office.clock += 12
    with pytest.raises(RoostError, match="ended 2 s ago"):
        join(token, machine)


def test_an_altered_token_is_refused(office: Office, machine: guest.Machine) -> None:
    token = office.token()
    other = Token(token.number, bytes(24), token.authority, token.port)
    with pytest.raises(RoostError, match="not known here"):
        join(other, machine)
    assert list(machine.tls_dir.iterdir()) == []
    join(token, machine)  # which harmed nobody


def test_another_authority_is_not_believed(office: Office, machine: guest.Machine) -> None:
    token = office.token()
    stranger = Token(token.number, token.secret, bytes(32), token.port)
    with pytest.raises(RoostError, match="authority is another one"):
        join(stranger, machine)
    assert not machine.tls_dir.exists()
    assert office.store.open_until(office.clock) > office.clock


def test_a_server_that_shows_the_authority_without_its_key_is_not_believed(
    office: Office, machine: guest.Machine, tmp_path: Path
) -> None:
    """Who is in between can pass on the certificate of the authority, but not answer as it."""
    liar = Office(tmp_path / "liar")
    liar.reception.fleet = lambda: {"ca": office.authority.certificate(), "controller": "one"}  # type: ignore[method-assign] # a lie
    with liar.open():
        token = office.token()
        through = Token(token.number, token.secret, token.authority, liar.port)
        with pytest.raises(RoostError, match="CERTIFICATE_VERIFY_FAILED"):
            join(through, machine)
    office.store.use(token.number, token.secret, "two", office.clock)  # it was not used up


def test_a_taken_name_uses_no_token_up(office: Office, machine: guest.Machine) -> None:
    office.taken = "two"
    token = office.token()
    with pytest.raises(RoostError, match="in the inventory already"):
        join(token, machine)
    office.taken = ""
    join(token, machine)


def test_a_failed_set_up_is_said_with_its_fix(office: Office, machine: guest.Machine) -> None:
    office.fails = True
    with pytest.raises(RoostError, match="Its disk is full") as caught:
        join(office.token(), machine)
    assert (caught.value.fix, caught.value.exit_code) == ("Free space.", 3)


def test_a_visit_is_good_once_and_soon(office: Office) -> None:
    assert next(iter(office.reception.ready("nonsense")))["code"] == 1


def test_nobody_listening_is_said(machine: guest.Machine) -> None:
    token = Token("0" * 16, bytes(24), bytes(32), 9)
    with pytest.raises(RoostError, match="does not answer at port 9"):
        join(token, machine)


def test_a_token_made_while_it_closes_is_received_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Office(tmp_path / "office")
    needed = iter([True, False, True, False, False])  # the second time it has closed already
    monkeypatch.setattr(made.reception, "is_needed", lambda: next(needed))
    ports: list[int] = []
    serve(made.reception, ("127.0.0.1", 0), ports.append)
    assert len(ports) == 2


def test_old_tls_is_refused(office: Office) -> None:
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", office.port)) as plain:  # noqa: PT011
        context.wrap_socket(plain, server_hostname="join.roost.internal")


WISH: dict[str, Any] = {
    "number": "0" * 16, "secret": "0" * 48, "name": "two", "address": "192.0.2.7", "host_keys": [KEY],
    "requests": {"node": "a", "cli": "b", "engine": "c"}, "environment": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "{{ lookup('pipe', 'id') }}"}, {"name": "two one"}, {"name": "-x"}, {"name": "a/b"},
        {"address": "two"}, {"address": "{{ x }}"}, {"host_keys": ["ssh-ed25519 A\ne * ssh-rsa A"]}, {"host_keys": []},
        {"environment": {"https_proxy": "{{ x }}"}}, {"environment": {"LD_PRELOAD": "x"}},
        {"environment": {"no_proxy": "{% x %}"}}, {"requests": {"ca": "a", "node": "b", "cli": "c"}}, {"more": 1},
        {"secret": "x"},
    ],
)  # fmt: skip
def test_what_a_stranger_writes_is_checked(wrong: dict[str, Any]) -> None:
    parse(json.dumps(WISH).encode())
    with pytest.raises(RoostError, match="not valid"):
        parse(json.dumps({**WISH, **wrong}).encode())


def test_the_machine_has_no_word_in_what_its_certificate_says() -> None:
    wish = parse(json.dumps(WISH).encode())
    hosts = {spec.name: spec.hosts for spec in leaves_of(wish, region="r", loopback="127.0.0.1")}
    assert hosts["node"] == ("client.r.nomad", "localhost", "127.0.0.1", "192.0.2.7")
    assert hosts["engine"] == ("192.0.2.7", "two")


def test_listening_that_breaks_off_at_once_is_not_begun_again_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Office(tmp_path)
    made.token()
    rounds: list[int] = []
    pauses: list[float] = []

    def breaks_off(_server: object, ended: threading.Event) -> None:
        rounds.append(1)
        if len(rounds) == 20:  # without a pause
            made.clock += 3600
        ended.set()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            made.clock += 3600  # nobody is awaited any more

    monkeypatch.setattr(reception, "_forever", breaks_off)
    monkeypatch.setattr(reception, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic, time=time.time))
    monkeypatch.setattr(reception._Server, "shutdown", lambda _server: None)
    serve(made.reception, ("127.0.0.1", 0))
    assert pauses == [reception.LOOK_EVERY_S] * 3
    assert 3 <= len(rounds) <= 4
