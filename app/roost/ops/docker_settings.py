"""Settings of Docker's own service: whether dockerd has begun with what stands in its files, and its beginning anew.

The files are written before dockerd begins anew, which waits until others have taken over from the machine. So a stamp
beside those of our services says with what it began, and a run that was broken off in between is gone on with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from roost.ops.files import write_atomic
from roost.ops.services import STAMPS, begin_anew, fingerprint, paused

SERVICE = "docker"
UNKNOWN = "unknown"


def stamp_of(manifest: Path) -> Path:
    """Return the file that says what dockerd began with; `manifest` is the ownership manifest's."""
    return manifest.parent / STAMPS / f"{SERVICE}.sha256"


def remember(stamp: Path, files: Sequence[str], *, running: bool) -> None:
    """Before `files` are written: see to it that there is a stamp.

    A dockerd that runs without one was begun by a release that did so as soon as it had written them.
    """
    if not running:
        _write(stamp, UNKNOWN)
    elif not stamp.exists():
        _write(stamp, _settings(files))


def due(stamp: Path, files: Sequence[str]) -> bool:
    """Say whether dockerd runs with something other than its files; without a stamp nobody knows that it does."""
    return stamp.exists() and stamp.read_text().strip() != _settings(files)


def began(stamp: Path, files: Sequence[str]) -> None:
    """Write down that dockerd began with what is in its files now."""
    _write(stamp, _settings(files))


def apply(stamp: Path, files: Sequence[str], pauses: Sequence[str] = ()) -> bool:
    """Have dockerd begin anew where that is due, while services that `pauses` names stand still; return whether it was.

    Containers go on meanwhile (live-restore). Nomad's driver takes the end of its wait for a container for the
    container's own and stops it (`run` in its drivers/docker/handle.go); when it begins anew it finds them again.

    Raises:
        RoostError: it does not start; the next call tries again.
    """
    if not due(stamp, files):
        return False
    _write(stamp, UNKNOWN)
    with paused(pauses):
        begin_anew(SERVICE)
    began(stamp, files)
    return True


def forget(stamp: Path) -> None:
    """Take the stamp away, and its folder where nothing else is in it."""
    stamp.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        stamp.parent.rmdir()


def _settings(files: Sequence[str]) -> str:
    return fingerprint("", [], files)


def _write(stamp: Path, text: str) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(stamp, text + "\n")
