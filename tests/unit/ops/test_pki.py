"""The certificate authority: made once, kept, renewed only when it must be."""

from __future__ import annotations

import datetime as dt
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from roost.ops import pki
from roost.ops.errors import RoostError

NODE = pki.LeafSpec("node", ("server.global.nomad", "localhost", "127.0.0.1"))
CLI = pki.LeafSpec("cli", ("cli.global.nomad",))


def test_first_run_makes_all_and_second_makes_nothing(tmp_path: Path) -> None:
    assert pki.ensure_pki(tmp_path, [NODE, CLI]) == ["ca", "node", "cli"]
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert pki.ensure_pki(tmp_path, [NODE, CLI]) == []
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_keys_are_private_and_chain_is_good_for_openssl(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [NODE, CLI])
    for key in ("ca-key.pem", "node-key.pem", "cli-key.pem", "cli.p12"):
        assert (tmp_path / key).stat().st_mode & 0o777 == 0o600, key
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "node.pem")]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "node.pem", tmp_path / "node-key.pem")


def test_the_apis_certificate_opens_no_door_of_nomad(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [NODE, CLI, pki.LeafSpec("api", ("192.0.2.1",))])
    purposes = {"node": ("sslserver", "sslclient"), "cli": ("sslclient",), "api": ("sslserver",)}
    for name, good in purposes.items():
        for purpose in ("sslserver", "sslclient"):
            argv = ["openssl", "verify", "-purpose", purpose, "-CAfile", str(tmp_path / "ca.pem")]
            done = subprocess.run([*argv, str(tmp_path / f"{name}.pem")], check=False, capture_output=True)
            assert (done.returncode == 0) == (purpose in good), (name, purpose)


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert pki.ensure_pki(tmp_path, [NODE], dry_run=True) == ["ca", "node"]
    assert list(tmp_path.iterdir()) == []


def test_changed_address_makes_only_that_certificate_again(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [NODE, CLI])
    moved = pki.LeafSpec("node", (*NODE.hosts, "192.0.2.7"))
    assert pki.ensure_pki(tmp_path, [moved, CLI]) == ["node"]
    names = x509.load_pem_x509_certificate((tmp_path / "node.pem").read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "192.0.2.7" in str(names.value.get_values_for_type(x509.IPAddress))


def test_certificate_near_its_end_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.ensure_pki(tmp_path, [NODE])
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=pki.LEAF_DAYS - pki.RENEW_BEFORE_DAYS + 1)
    monkeypatch.setattr(pki, "_now", lambda: later)
    assert pki.ensure_pki(tmp_path, [NODE]) == ["node"]


def test_what_a_run_will_renew_is_known_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, ca = tmp_path / "node.pem", tmp_path / "ca.pem"
    assert not pki.renewal_due(node, ca), "a machine that has none yet"
    pki.ensure_pki(tmp_path, [NODE])
    now = dt.datetime.now(dt.UTC)
    for day, due in (
        (pki.LEAF_DAYS - pki.RENEW_BEFORE_DAYS - 1, False),
        (pki.LEAF_DAYS - pki.RENEW_BEFORE_DAYS + 1, True),
    ):
        monkeypatch.setattr(pki, "_now", lambda day=day: now + dt.timedelta(days=day))
        assert pki.renewal_due(node, ca) == due == bool(pki.ensure_pki(tmp_path, [NODE], dry_run=True))
    monkeypatch.setattr(pki, "_now", lambda: now + dt.timedelta(days=pki.CA_DAYS - 30))
    pki.ensure_pki(tmp_path, [NODE])
    assert not pki.renewal_due(node, ca), "it ends with its authority, and no run can do better"
    node.write_text("damaged")
    assert pki.renewal_due(node, ca)


def test_certificate_of_another_authority_is_replaced(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    pki.ensure_pki(ours, [NODE])
    pki.ensure_pki(other, [NODE])
    (ours / "node.pem").write_bytes((other / "node.pem").read_bytes())
    assert pki.ensure_pki(ours, [NODE]) == ["node"]


def test_half_an_authority_is_an_error_that_says_which_half(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [NODE])
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(RoostError, match=r"ca-key\.pem is missing"):
        pki.ensure_pki(tmp_path, [NODE])


def test_killed_between_key_and_certificate_is_completed(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [NODE, CLI])
    other = tmp_path / "other"
    other.mkdir()
    pki.ensure_pki(other, [NODE])
    (tmp_path / "node-key.pem").write_bytes((other / "node-key.pem").read_bytes())
    assert pki.ensure_pki(tmp_path, [NODE, CLI]) == ["node"]
    assert pki.ensure_pki(tmp_path, [NODE, CLI]) == []


def test_an_authoritys_key_that_signed_nothing_is_replaced(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [])
    (tmp_path / "ca.pem").unlink()
    assert pki.ensure_pki(tmp_path, [NODE]) == ["ca", "node"]
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(RoostError, match=r"ca\.pem is missing"):
        pki.ensure_pki(tmp_path, [NODE])


def test_the_browsers_bundle_is_made_again(tmp_path: Path) -> None:
    pki.ensure_pki(tmp_path, [NODE, CLI])
    (tmp_path / "cli.p12").unlink()
    assert pki.ensure_pki(tmp_path, [NODE, CLI]) == ["cli"]
    assert (tmp_path / "cli.p12").exists()


def test_no_certificate_outlives_the_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.ensure_pki(tmp_path, [NODE])
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=pki.CA_DAYS - 30)
    monkeypatch.setattr(pki, "_now", lambda: later)
    assert pki.ensure_pki(tmp_path, [NODE]) == ["node"]
    ca, node = (x509.load_pem_x509_certificate((tmp_path / f"{n}.pem").read_bytes()) for n in ("ca", "node"))
    assert node.not_valid_after_utc == ca.not_valid_after_utc
    assert pki.ensure_pki(tmp_path, [NODE]) == []


def test_secrets_are_made_once_private_and_different(tmp_path: Path) -> None:
    made = pki.ensure_secrets(tmp_path)
    assert sorted(made) == ["api-key", "engine-key", "gossip-key", "nomad-operator-token"]
    values = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert len(set(values.values())) == len(values)
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in tmp_path.iterdir())
    (tmp_path / "api-key").unlink()
    assert pki.ensure_secrets(tmp_path) == ["api-key"]
    assert (tmp_path / "engine-key").read_text() == values["engine-key"]


@pytest.mark.parametrize(
    ("written", "valid"),
    [
        ("fe80::1%eth0", []),
        ("2001:db8::1%eth0", ["2001:db8::1"]),
        ("[2001:db8::1]", ["2001:db8::1"]),
        ("bücher.example", ["xn--bcher-kva.example"]),
        ("gateway.example", ["gateway.example"]),
    ],
)
def test_names_as_people_write_them_make_one_certificate(tmp_path: Path, written: str, valid: list[str]) -> None:
    spec = pki.LeafSpec("api", ("one", written))
    assert pki.ensure_pki(tmp_path, [spec]) == ["ca", "api"]
    found = x509.load_pem_x509_certificate((tmp_path / "api.pem").read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(name.value) for name in found.value] == ["one", *valid]
    assert pki.ensure_pki(tmp_path, [spec]) == []


@pytest.mark.parametrize("wrong", ["a..b", "x" * 64, "ü" * 64])
def test_a_name_that_no_certificate_can_have_is_refused_by_name(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(RoostError, match="no name"):
        pki.ensure_pki(tmp_path, [pki.LeafSpec("api", ("one", wrong))])
