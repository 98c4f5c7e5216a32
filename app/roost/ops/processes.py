"""Ends of processes: of what still runs as users of ours when they go, and of our own in the middle of something."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

GRACE_S = 10.0
PROC = Path("/proc")


def running_as(uids: Collection[int], proc: Path = PROC) -> list[int]:
    """Return the processes whose real user is one of `uids`; not those in a pid namespace of a container.

    Those have a number in each namespace, `NSpid` of proc_pid_status(5); links below `ns/` cannot be read everywhere.
    """
    found: list[int] = []
    for folder in proc.iterdir():
        if not folder.name.isdigit() or folder.name == str(os.getpid()):
            continue
        with suppress(OSError):  # gone meanwhile
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            if int(status["Uid"].split()[0]) in uids and len(status.get("NSpid", "").split()) <= 1:
                found.append(int(folder.name))
    return sorted(found)


def end(pids: Collection[int], grace_s: float = GRACE_S) -> None:
    """Ask processes to end, and end those that still run after `grace_s` seconds; return when all are gone."""
    handles: dict[int, int] = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            handles[os.pidfd_open(pid)] = pid
    try:
        for code, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
            for handle in handles:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, code)
            for handle in list(handles):
                if select.select([handle], [], [], wait_s)[0]:
                    os.close(handle)
                    del handles[handle]
    finally:
        for handle in handles:
            os.close(handle)


@contextmanager
def terminations_raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that what is undone at the end is undone; in the main thread only.

    One that is ignored stays so: nohup(1) means that.
    """

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
