"""SQLite for what must survive: how a database is opened, and how an old one is brought up to date.

Releases of SQLite up to 3.51.2 can corrupt a database in write-ahead mode when its log is reset while another
connection writes (https://www.sqlite.org/wal.html). With those the rollback journal is used, which lacks the fault.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from roost.ops.errors import RoostError

WAL_IS_SOUND_FROM = (3, 51, 3)
BUSY_MS = 30_000
FILE_MODE = 0o600


def journal_mode(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """Return the journal mode for a release of SQLite."""
    return "WAL" if version >= WAL_IS_SOUND_FROM else "TRUNCATE"


def pragmas() -> tuple[str, ...]:
    """Return what every connection is told: what was committed is on disk, even after a power cut."""
    return (
        f"PRAGMA journal_mode = {journal_mode()}",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA busy_timeout = {BUSY_MS}",
    )


def open_database(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """Open a database and bring it up to date; `migrations[n]` is the SQL that makes version n + 1 of version n.

    A copy of an older one is kept beside it as `NAME.version-N` before it is changed; a migration that fails changes
    nothing.

    Raises:
        RoostError: a later release wrote it, or it is damaged.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(FILE_MODE)
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in pragmas():
            db.execute(pragma)
        _migrate(db, path, migrations)
    except sqlite3.DatabaseError as error:
        raise RoostError(
            f"The database {path} cannot be used: {error}.",
            fix=f"Put a backup of it back, or move {path} away: a new one is begun.",
        ) from None
    return db


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise RoostError(
            f"The database {path} is of version {version}, and this release knows up to {len(migrations)}.",
            fix="Use the later release again, or put the copy from before its update back.",
        )
    if 0 < version < len(migrations):
        _keep_copy(db, path.with_name(f"{path.name}.version-{version}"))
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _keep_copy(db: sqlite3.Connection, target: Path) -> None:
    if target.exists():  # of an update that failed: the older copy is the one from before
        return
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(FILE_MODE)
    copy = sqlite3.connect(part)
    try:
        db.backup(copy)
    finally:
        copy.close()
    part.rename(target)
