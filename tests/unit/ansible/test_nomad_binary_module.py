"""The module that installs Nomad, run by Ansible: truthful in check mode, quiet when there is nothing to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from roost.fleet.nomad_release import Platform
from roost.fleet.nomad_sources import SIDECAR, release_key
from tests.support.ansible_module import run_module
from tests.support.releases import VERSION, pretended_nomad

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = "roost_nomad_binary"


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, object]:
    """Return the module's arguments, with a pretended Nomad in the cache."""
    folder = tmp_path / "cache/nomad" / release_key(VERSION, Platform.of_this_machine())
    folder.mkdir(parents=True)
    program = pretended_nomad()
    (folder / "nomad").write_bytes(program)
    (folder / "nomad").chmod(0o755)
    (folder / SIDECAR).write_text(f"{hashlib.sha256(program).hexdigest()}  nomad\n")
    return {
        "version": VERSION,
        "sources": ["cache"],
        "install_dir": str(tmp_path / "opt"),
        "cache_dir": str(tmp_path / "cache"),
        "release_url": "http://localhost:1/nomad",
        "release_key_url": "http://localhost:1/key.txt",
        "release_key_fingerprint": "0" * 40,
        "build_dir": str(REPOSITORY / "nomad/build"),
    }


def test_check_mode_says_what_the_run_then_does(arguments: dict[str, object], tmp_path: Path) -> None:
    would = run_module(MODULE, arguments, check=True)
    assert (would["changed"], would["msg"]) == (True, "would install Nomad 1.11.3 from cache")
    assert not (tmp_path / "opt").exists()
    done = run_module(MODULE, arguments)
    assert (done["changed"], done["source"], done["version"]) == (True, "cache", VERSION)
    assert done["path"] == would["path"] == str(tmp_path / "opt/nomad/1.11.3/nomad")
    assert done["sha256"] == hashlib.sha256(pretended_nomad()).hexdigest()
    for check in (False, True):
        again = run_module(MODULE, arguments, check=check)
        assert (again["changed"], again["sha256"]) == (False, done["sha256"])


def test_failure_is_a_sentence_with_a_fix(arguments: dict[str, object], tmp_path: Path) -> None:
    failed = run_module(MODULE, {**arguments, "cache_dir": str(tmp_path / "empty")})
    assert failed["failed"] is True
    assert failed["msg"].startswith("Nomad 1.11.3 could be had from no source.")
    assert "Traceback" not in failed["msg"]
