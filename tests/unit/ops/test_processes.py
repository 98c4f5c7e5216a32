"""Which processes are of users of ours, and that they end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roost.ops.processes import end, running_as

HERE, CONTAINER = "71", "71\t5"


def process(proc: Path, name: str, uid: int, numbers: str = HERE) -> None:
    (proc / name).mkdir(parents=True)
    (proc / name / "status").write_text(f"Name:\tsome\nUid:\t{uid}\t0\t0\t0\nNSpid:\t{numbers}\n")


def test_those_of_our_users_outside_containers(tmp_path: Path) -> None:
    process(tmp_path, "self", 0)
    process(tmp_path, "71", 8362)
    process(tmp_path, "72", 1000)
    process(tmp_path, "73", 8362, CONTAINER)
    process(tmp_path, "8", 8361)
    (tmp_path / "99").mkdir()  # it ended while we looked
    (tmp_path / "cpuinfo").touch()
    assert running_as({8361, 8362}, tmp_path) == [8, 71]
    assert running_as(set(), tmp_path) == []


def test_this_machine_is_read() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as mine:
        assert mine.pid in running_as({os.getuid()})
        assert mine.stdin is not None


@pytest.mark.parametrize("trap", ["SIG_DFL", "SIG_IGN"])
def test_a_process_ends_whether_it_listens_or_not(trap: str) -> None:
    script = f"import signal; signal.signal(signal.SIGTERM, signal.{trap}); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        end([stubborn.pid, 2**22 - 1], grace_s=0.2)
        assert stubborn.wait(timeout=5) < 0
