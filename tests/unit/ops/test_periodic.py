"""What runs something now and then: not before it is due, again soon after it failed, and it ends when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "app/roost/ops/periodic.sh"


def begin(folder: Path, command: str, minutes: int = 10) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["sh", SCRIPT, str(minutes), folder, "*.snap", "sh", "-c", command], cwd=folder, start_new_session=True
    )


def wait_for(check: Callable[[], bool]) -> None:
    for _ in range(200):
        if check():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 10 s")


def naps(process: subprocess.Popen[bytes]) -> str:
    """The command line of what the script waits for."""
    return ps("-o", "args=", "--ppid", str(process.pid)).strip()


def alive(group: int) -> list[str]:
    """The state of each process of a group, without those that nobody collected yet."""
    found = [line.split() for line in ps("-e", "-o", "pgid=,stat=").splitlines()]
    return [state for of, state in found if of == str(group) and state[0] != "Z"]


def ps(*words: str) -> str:
    """What ps prints."""
    return subprocess.run(["ps", *words], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("age_s", "content", "due"),
    [
        (None, "", True),
        (700, "old.snap", True),
        (60, "new.snap", False),
        (60, "else.txt", True),
        (-90000, "of-before-the-clock-was-set-back.snap", True),
    ],
)
def test_it_runs_when_nothing_young_is_there(tmp_path: Path, age_s: int | None, content: str, due: bool) -> None:
    if age_s is not None:
        (tmp_path / content).touch()
        when = time.time() - age_s
        os.utime(tmp_path / content, (when, when))
    process = begin(tmp_path, "echo ran >>log; : >made.snap")
    try:
        wait_for(lambda: naps(process) == "sleep 300")
        assert (tmp_path / "log").exists() == due
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_what_failed_is_tried_again_soon(tmp_path: Path) -> None:
    process = begin(tmp_path, "echo ran >>log; exit 3")
    try:
        wait_for(lambda: naps(process) == "sleep 30")
        assert (tmp_path / "log").read_text() == "ran\n"
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_it_leaves_no_sleep_behind(tmp_path: Path) -> None:
    process = begin(tmp_path, "true")
    wait_for(lambda: naps(process).startswith("sleep"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    wait_for(lambda: not alive(process.pid))  # the pause itself would take 30 s and more
