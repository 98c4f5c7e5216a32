"""What surrounds a service that is replaced: the keeper of its sockets, and clients that try nothing a second time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roost.ops.listen_keeper import NAME
from tests.support.gateway import API_KEY, REPOSITORY
from tests.support.net import eventually, wait_until
from tests.support.processes import end

WORKERS = 6
SOON_S = 30.0


@contextmanager
def keeper_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a keeper at a folder, as machines do, until the context ends; it may have been stopped or killed by then."""
    script = REPOSITORY / "app/roost/ops/listen_keeper.py"
    process = subprocess.Popen([sys.executable, "-I", "-S", script, folder])
    try:
        wait_until((folder / NAME).exists, SOON_S, "the keeper")
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        end(process, SOON_S)


class Clients:
    """What clients have seen so far, as tests/hosts/load.py writes it."""

    def __init__(self, seen: Path) -> None:
        self._seen = seen

    def found(self) -> dict[str, Any]:
        """Return what was asked, and what failed."""
        return dict(json.loads(self._seen.read_text())) if self._seen.exists() else {"plain": 0, "streamed": 0}

    async def more(self, of_each: int = 5) -> None:
        """Wait until that many more requests of each kind had their answer."""
        wanted = {kind: self.found()[kind] + of_each for kind in ("plain", "streamed")}
        await eventually(lambda: all(self.found()[kind] >= count for kind, count in wanted.items()), SOON_S, "answers")


@contextmanager
def clients(folder: Path, url: str, authority: Path | None = None) -> Iterator[Clients]:
    """Have clients ask until the context ends."""
    key, seen = folder / "key", folder / "seen.json"
    key.write_text(API_KEY)
    program = REPOSITORY / "tests/hosts/load.py"
    process = subprocess.Popen([sys.executable, program, seen, str(authority or "-"), key, str(WORKERS), url])
    try:
        yield Clients(seen)
    finally:
        end(process, SOON_S)
