"""While packages install without starting services: what is left of our policy, whatever happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from roost.ops.ownership import Manifest
from roost.ops.packages import POLICY_TEXT, services_kept_from_starting

THEIRS = "#!/bin/sh\nexit 0\n"
HOLD = """
import sys
from pathlib import Path
from roost.ops.ownership import Manifest
from roost.ops.packages import services_kept_from_starting
with services_kept_from_starting(Manifest(Path(sys.argv[1])), Path(sys.argv[2])):
    print("in place", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest(tmp_path / "manifest")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


@pytest.mark.parametrize("before", [None, THEIRS, POLICY_TEXT])
def test_afterwards_it_is_as_before_and_ours_from_a_killed_run_goes(
    manifest: Manifest, policy: Path, before: str | None
) -> None:
    if before is not None:
        policy.write_text(before)
        policy.chmod(0o750)
    with services_kept_from_starting(manifest, policy):
        assert policy.read_text() == POLICY_TEXT
        assert manifest.owned("path") == ([] if before == THEIRS else [str(policy)])
    assert manifest.owned("path") == []
    assert policy.exists() == (before == THEIRS)
    if before == THEIRS:
        assert (policy.read_text(), policy.stat().st_mode & 0o777) == (THEIRS, 0o750)


@pytest.mark.parametrize("before", [None, THEIRS])
def test_a_terminated_process_takes_it_away(manifest: Manifest, policy: Path, before: str | None) -> None:
    if before is not None:
        policy.write_text(before)
    words = [sys.executable, "-c", HOLD, str(manifest.path), str(policy)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in place\n"
        assert policy.read_text() == POLICY_TEXT
        process.terminate()
        assert process.wait(timeout=10) == 143
    assert (policy.read_text() if policy.exists() else None) == before
    assert manifest.owned("path") == []
