"""Programs that tests start."""

from __future__ import annotations

import subprocess


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], within_s: float) -> None:
    """Ask a program to end (SIGTERM) and wait for it; one that has not after so many seconds is killed."""
    process.terminate()  # nothing, where it has ended
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
