"""One worker of a user and key at a time: the lock that it holds, and who holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.ops.errors import RoostError

LOCK = "lock"
NOBODY_KNOWN = 0
"""Stands for a holder that has not said which process it is."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second worker of the same user and key from running beside this one.

    Raises:
        RoostError: one runs already.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise runs_already(_written(handle)) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(folder: Path) -> int | None:
    """Return the process that holds the lock, `NOBODY_KNOWN` where it does not say; None where none does."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _written(handle)
    else:
        return None
    finally:
        os.close(handle)


def named(folder: Path) -> int:
    """Return the process that took the lock last; asking does not touch the lock, so it is in no worker's way."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return NOBODY_KNOWN
    try:
        return _written(handle)
    finally:
        os.close(handle)


def runs_already(process: int) -> RoostError:
    """Return what to say where a worker of the user and key runs already."""
    which = f" (process {process})" if process else ""
    end = f"`kill {process}`" if process else "Ctrl-C where it runs"
    return RoostError(
        f"A worker of this user and key runs already{which}.",
        fix=f"Use that one, or end it ({end}; the service of `roost worker install`: `roost worker uninstall`) and run "
        "this again.",
    )


def _written(handle: int) -> int:
    text = os.pread(handle, 32, 0).strip()
    return int(text) if text.isdigit() else NOBODY_KNOWN
