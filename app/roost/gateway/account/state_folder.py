"""The folder in which the gateway keeps usage: locked for one process, and what is damaged in it or has no room."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from pathlib import Path

import structlog

from roost.gateway.account.ledger import Ledger
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

DATABASE = "usage.db"
LOCK = "usage.lock"
# The disk's own trouble, which may end: full, over a quota, read-only, failing.
DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
SQLITE_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
PRIMARY_CODE = 0xFF  # the lower byte of an error's code (https://www.sqlite.org/rescode.html)


def is_of_the_disk(error: Exception) -> bool:
    """Say whether an error is the disk's, so that it may go away by itself, and not one of the set-up."""
    if isinstance(error, OSError):
        return error.errno in DISK
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & PRIMARY_CODE) in SQLITE_DISK


def lock(folder: Path) -> int:
    """Take the folder for this process; returns the open lock.

    Raises:
        RoostError: another process has it, or it cannot be written.
    """
    try:
        handle = _open_lock(folder)
    except OSError as error:
        raise RoostError(
            f"The folder of the state, {folder}, cannot be written: {error.strerror}.",
            fix="Make it, owned by the agent's user; `./bootstrap.sh` does.",
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise RoostError(
            f"Another agent uses the folder of the state, {folder}.", fix="Stop it, or set another ROOST_STATE_DIR."
        ) from None
    return handle


def _open_lock(folder: Path) -> int:
    try:
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if not is_of_the_disk(error):
            raise
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # no room for a file: the folder itself


def open_ledger(folder: Path | None) -> Ledger:
    """Open the database; one that is damaged is put aside, usage begins anew, and the log says so.

    Raises:
        OSError, sqlite3.Error: it cannot be opened or made.
    """
    if folder is None:
        return Ledger(None)
    path = folder / DATABASE
    try:
        return Ledger(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = path.with_name(f"{DATABASE}.broken-{time.time_ns()}")
        log.critical("usage_database_broken", error=str(error), moved_to=str(aside))
        path.rename(aside)
        for more in ("-wal", "-shm"):
            path.with_name(DATABASE + more).unlink(missing_ok=True)
        return Ledger(path)
