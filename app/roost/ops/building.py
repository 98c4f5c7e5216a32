"""Run a program that works for minutes: what it says is followed, and now and then somebody is told how far it is."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPORT_EVERY_S = 10.0
INTERRUPT_WAIT_S = 15.0


def follow(
    argv: Sequence[str],
    env: Mapping[str, str],
    heard: Callable[[str], None],
    report: Callable[[float], None],
    folder: Path | None = None,
) -> tuple[int, float]:
    """Run a program in a folder; return its exit code and how many seconds it took.

    `heard` gets each line of its output, `report` about every `REPORT_EVERY_S` seconds how long it has worked. Where
    waiting for it ends early it is interrupted first, so that it can end its own children and remove their files.

    Raises:
        OSError: it cannot be started.
    """
    start = reported = time.monotonic()
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                heard(line)
                now = time.monotonic()
                if now - reported >= REPORT_EVERY_S:
                    reported = now
                    report(now - start)
        except BaseException:
            _interrupt(process)
            raise
    return process.returncode, time.monotonic() - start


def _interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(INTERRUPT_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
