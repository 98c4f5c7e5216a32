"""Secrets under a passphrase: in ansible-vault's format, and read wherever plain ones are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from roost.ops.authority import Authority
from roost.ops.errors import RoostError
from roost.ops.pki import LeafSpec, ensure_pki, load_authority
from roost.ops.sealed import FROM_ENVIRONMENT, FROM_FILE, is_sealed, read_secret, seal, unseal

PHRASE = "a long passphrase"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FROM_ENVIRONMENT, raising=False)
    path = tmp_path / "passphrase"
    path.write_text(f"{PHRASE}\n")
    monkeypatch.setenv(FROM_FILE, str(path))


def test_sealed_and_back(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("abc\n")
    assert seal(path)
    assert is_sealed(path.read_bytes())
    assert b"abc" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not seal(path)
    assert read_secret(path) == b"abc\n"
    assert unseal(path)
    assert not unseal(path)
    assert path.read_text() == "abc\n"


def test_ansible_vault_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("abc\n")
    seal(path)
    program = Path(sys.executable).with_name("ansible-vault")
    words = [str(program), "view", "--vault-password-file", str(tmp_path / "passphrase"), str(path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "abc\n"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 241])
def test_it_reads_what_ansible_vault_wrote(tmp_path: Path, length: int) -> None:
    path = tmp_path / "secret"
    plain = bytes(range(length))
    path.write_bytes(VaultLib([("default", VaultSecret(PHRASE.encode()))]).encrypt(plain))
    assert read_secret(path) == plain
    path.write_bytes(plain)
    seal(path)
    assert VaultLib([("default", VaultSecret(PHRASE.encode()))]).decrypt(path.read_bytes()) == plain


def test_it_is_read_inside_ansibles_modules(tmp_path: Path) -> None:
    """There `ansible` has no vault: a run with sealed secrets ended at the certificates."""
    path = tmp_path / "secret"
    path.write_text("abc\n")
    seal(path)
    code = (
        "import sys; sys.modules['ansible'] = None\n"
        f"from roost.ops.sealed import *; print(read_secret(Path({str(path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "b'abc\\n'\n", done.stderr


def test_the_agent_needs_no_more_packages_for_it(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text("abc\n")
    code = (
        "import sys; sys.modules['ansible'] = sys.modules['cryptography'] = None\n"
        f"from roost.ops.sealed import *; print(read_secret(Path({str(path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "b'abc\\n'\n", done.stderr


@pytest.mark.parametrize(("phrase", "why"), [("", "there is no passphrase"), ("another passphrase", "does not open")])
def test_without_the_passphrase_it_stays_shut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phrase: str, why: str
) -> None:
    path = tmp_path / "secret"
    path.write_text("abc\n")
    seal(path)
    before = path.read_bytes()
    monkeypatch.delenv(FROM_FILE)
    monkeypatch.setenv(FROM_ENVIRONMENT, phrase)
    for what in (read_secret, unseal, seal):
        with pytest.raises(RoostError, match=why):
            what(path)
    assert path.read_bytes() == before


def test_a_short_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text("abc\n")
    monkeypatch.delenv(FROM_FILE)
    monkeypatch.setenv(FROM_ENVIRONMENT, "short")
    with pytest.raises(RoostError, match="fewer than"):
        seal(path)
    assert path.read_text() == "abc\n"


def test_the_authority_signs_with_a_sealed_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls", tmp_path / "secrets")
    authority.ensure()
    token = authority.secret("nomad-operator-token")
    seal(tmp_path / "tls/ca-key.pem")
    seal(tmp_path / "secrets/nomad-operator-token")
    assert authority.secret("nomad-operator-token") == token
    assert authority.ensure() == []
    load_authority(tmp_path / "tls")
    assert ensure_pki(tmp_path / "tls", [LeafSpec("node", ("one",))]) == ["node"]
    assert is_sealed((tmp_path / "tls/ca-key.pem").read_bytes())
