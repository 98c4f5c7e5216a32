"""supervise.sh with real daemons under dash: those that end at once, and kill -9 on each side."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.ops.units import SUPERVISOR
from tests.unit.bootstrap.waiting import until

# Pauses between starts are written down, and short; not those of the log's keeper (0.5) and of stop (0.2).
SLEEP = """#!/bin/sh
case $1 in 0.5 | 0.2) ;; *) echo "$1" >>"${0%/*}/../naps" ;; esac
exec /bin/sleep 0.02
"""


class Supervised:
    """One daemon below a supervisor of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        self.command = command
        (folder / "bin").mkdir()
        (folder / "bin" / "sleep").write_text(SLEEP)
        (folder / "bin" / "sleep").chmod(0o755)

    def __call__(self, verb: str) -> subprocess.CompletedProcess[str]:
        """Run a verb; it must end, however busy the machine is."""
        user = pwd.getpwuid(os.getuid()).pw_name
        options = ["--run-dir", str(self.folder), "--log", str(self.log), "--log-pause", "0.5", "--user", user]
        return subprocess.run(
            [str(SUPERVISOR), verb, "thing", *options, "--", *self.command],
            env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.folder / "log"

    def pid(self, kind: str = "pid") -> int:
        """Return the PID in a pidfile, 0 without one."""
        try:
            return int((self.folder / f"thing.{kind}").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return 0

    def naps(self) -> list[str]:
        """Return the pauses between starts, in seconds."""
        file = self.folder / "naps"
        return file.read_text().split() if file.exists() else []

    def children(self) -> list[int]:
        """Return the PIDs of all processes that are the daemon."""
        words = "".join(f"{word}\0" for word in self.command).encode()
        return [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if _read(p) == words]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Supervised]:
    """Yield a daemon that stays; its argument makes it known among all processes."""
    made = Supervised(tmp_path, "/bin/sleep", f"1000.{os.getpid()}")
    yield made
    assert made("stop").returncode == 0
    assert made.children() == []


def test_a_daemon_that_ends_at_once_is_started_again_with_longer_and_longer_pauses(tmp_path: Path) -> None:
    daemon = Supervised(tmp_path, "/bin/false")
    assert daemon("start").returncode == 0
    until(lambda: len(daemon.naps()) >= 6, "six starts")
    assert daemon.naps()[:6] == ["1", "2", "4", "8", "15", "15"]
    supervisor = daemon.pid("supervisor.pid")
    stopped = daemon("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "thing: stopped.\n")
    until(lambda: not Path(f"/proc/{supervisor}").exists(), "the supervisor's end")
    assert daemon("status").returncode == 3


@pytest.mark.parametrize("time", ["\n", ""])
def test_a_pidfile_without_a_start_time_is_nobody(tmp_path: Path, time: str) -> None:
    daemon = Supervised(tmp_path, "/bin/false")
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    (tmp_path / "thing.pid").write_text(f"{ended.pid}\n{time}")
    assert daemon("status").returncode == 1
    assert daemon("stop").returncode == 0
    assert daemon("status").returncode == 3


def test_a_killed_daemon_is_back(daemon: Supervised) -> None:
    assert daemon("start").returncode == 0
    first = daemon.pid()
    os.kill(first, signal.SIGKILL)
    second = until(lambda: daemon.pid() not in {0, first} and daemon.pid(), "another PID")
    until(lambda: daemon.children() == [second], "one daemon")
    assert "ended with code 137" in daemon.log.read_text()


def test_a_killed_supervisor_leaves_the_daemon_to_the_next_one(daemon: Supervised) -> None:
    assert daemon("start").returncode == 0
    child, supervisor = daemon.pid(), daemon.pid("supervisor.pid")
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: daemon("status").returncode == 1, "a dead supervisor")
    assert daemon("start").returncode == 0
    assert daemon.pid("supervisor.pid") != supervisor
    assert daemon.pid() == child
    assert daemon.children() == [child]
    os.kill(child, signal.SIGKILL)
    until(lambda: daemon.pid() not in {0, child}, "a daemon in its place")
