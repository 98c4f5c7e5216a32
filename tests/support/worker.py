"""`roost worker` as the process that users run, not as root: where the tests are root it runs under another number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.gateway import REPOSITORY
from tests.support.net import wait_until
from tests.support.processes import end

USER = 8364


@dataclass(frozen=True)
class Home:
    """A user's home folder, and the API that their commands ask."""

    folder: Path
    api: str
    key: str

    def environment(self) -> dict[str, str]:
        """Return the variables of their commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROOST_", "XDG_"))}
        paths = {"HOME": str(self.folder), "PYTHONPATH": str(REPOSITORY / "app")}
        return {**kept, **paths, "ROOST_API": self.api, "ROOST_API_KEY": self.key}

    def words(self, *words: str) -> list[str]:
        """Return the command line of a verb as an ordinary user types it.

        Root maps itself to another number in a user namespace: it owns the same files, and is root no more.
        """
        other = ["unshare", "--user", f"--map-user={USER}", f"--map-group={USER}", "--"] if os.geteuid() == 0 else []
        return [*other, sys.executable, "-P", "-m", "roost", *words]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            self.words(*words), env=self.environment(), capture_output=True, text=True, check=check, timeout=120
        )


@dataclass(frozen=True)
class Running:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what it said of one kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == kind]

    def connected(self, times: int = 1) -> None:
        """Wait until it is connected (that many times)."""
        wait_until(lambda: self._alive() and len(self.events("connected")) >= times, 60, "the worker to connect")

    def _alive(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker ended with {self.process.returncode}: {self.log.read_text()}")
        return True


@contextmanager
def worker(home: Home, words: Sequence[str] = ()) -> Iterator[Running]:
    """Run `roost worker` until the context ends."""
    log = home.folder / "worker.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            home.words("worker", "--json", *words), env=home.environment(), stdout=stream, stderr=stream
        )
    running = Running(process, log)
    try:
        running.connected(len(running.events("connected")) + 1)
        yield running
    finally:
        end(process, 30)
