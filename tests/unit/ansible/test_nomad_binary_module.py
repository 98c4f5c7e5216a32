"""The module that installs Nomad, run by Ansible: truthful in check mode, quiet when there is nothing to do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from roost.fleet.nomad_release import Platform
from roost.fleet.nomad_sources import SIDECAR, release_key
from tests.support.releases import VERSION, pretended_nomad

REPOSITORY = Path(__file__).resolve().parents[3]


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


def run_module(arguments: dict[str, object], *options: str) -> dict[str, Any]:
    """Run the module through `ansible` on this machine and return its result."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")), "localhost", "--connection", "local", "--one-line",
            "--module-path", str(REPOSITORY / "ansible/plugins/modules"), "--module-name", "roost_nomad_binary",
            "--args", json.dumps(arguments), "--extra-vars", f"ansible_python_interpreter={sys.executable}", *options,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "app"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert " => " in done.stdout, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.split(" => ", 1)[1])
    return {**result, "failed": done.returncode != 0}


def test_check_mode_says_what_the_run_then_does(arguments: dict[str, object], tmp_path: Path) -> None:
    would = run_module(arguments, "--check")
    assert (would["changed"], would["msg"]) == (True, "would install Nomad 1.11.3 from cache")
    assert not (tmp_path / "opt").exists()
    done = run_module(arguments)
    assert (done["changed"], done["source"], done["version"]) == (True, "cache", VERSION)
    assert done["path"] == would["path"] == str(tmp_path / "opt/nomad/1.11.3/nomad")
    assert done["sha256"] == hashlib.sha256(pretended_nomad()).hexdigest()
    for options in ((), ("--check",)):
        again = run_module(arguments, *options)
        assert (again["changed"], again["sha256"]) == (False, done["sha256"])


def test_failure_is_a_sentence_with_a_fix(arguments: dict[str, object], tmp_path: Path) -> None:
    failed = run_module({**arguments, "cache_dir": str(tmp_path / "empty")})
    assert failed["failed"] is True
    assert failed["msg"].startswith("Nomad 1.11.3 could be had from no source.")
    assert "Traceback" not in failed["msg"]
