"""Opening SQLite: versions, copies, damage."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from roost.durable.database import journal_mode, open_database
from roost.ops.errors import RoostError

FIRST = "CREATE TABLE a (x INTEGER)"
SECOND = "ALTER TABLE a ADD COLUMN y INTEGER"
BAD = "CREATE TABLE b (x INTEGER); CREATE TABLE nonsense nonsense"


def columns(db: sqlite3.Connection) -> list[str]:
    return [row[1] for row in db.execute("PRAGMA table_info(a)")]


@pytest.mark.parametrize(
    ("version", "mode"),
    [((3, 40, 1), "TRUNCATE"), ((3, 51, 2), "TRUNCATE"), ((3, 51, 3), "WAL"), ((3, 52, 0), "WAL"), ((4, 0, 0), "WAL")],
)
def test_the_journal_is_one_that_the_release_has_right(version: tuple[int, ...], mode: str) -> None:
    assert journal_mode(version) == mode


def test_what_is_committed_is_synced(tmp_path: Path) -> None:
    db = open_database(tmp_path / "x.sqlite", [FIRST])
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == journal_mode().lower()
    assert (tmp_path / "x.sqlite").stat().st_mode & 0o777 == 0o600


def test_an_older_database_is_brought_up_to_date_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    open_database(path, [FIRST]).execute("INSERT INTO a VALUES (7)")
    db = open_database(path, [FIRST, SECOND])
    assert columns(db) == ["x", "y"]
    assert db.execute("SELECT x FROM a").fetchall() == [(7,)]
    kept = sqlite3.connect(tmp_path / "x.sqlite.version-1")
    assert columns(kept) == ["x"]
    assert kept.execute("SELECT x FROM a").fetchall() == [(7,)]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    open_database(path, [FIRST]).close()
    with pytest.raises(RoostError, match="cannot be used"):
        open_database(path, [FIRST, BAD])
    db = open_database(path, [FIRST])
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["a"]


def test_a_database_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    open_database(path, [FIRST, SECOND]).close()
    before = path.read_bytes()
    with pytest.raises(RoostError, match="version 2, and this release knows up to 1"):
        open_database(path, [FIRST])
    assert path.read_bytes() == before


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(RoostError, match="cannot be used"):
        open_database(tmp_path / "x.sqlite", [FIRST])
