"""Sums of usage by day, key and model in SQLite.

One connection: SQLite before 3.51.3 may corrupt a write-ahead log that two of them write.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost.gateway.account import ledger_sql as sql
from roost.gateway.account.budget import Spent
from roost.gateway.account.limits import Level
from roost.gateway.account.usage import SUM_FIELDS, Group, Sums

MEMORY = ":memory:"
DIMENSIONS = ("day", "key", "model")


@dataclass(frozen=True)
class Position:
    """How far the spools are in the sums: all before `spool`, and that one up to the byte `position`."""

    spool: int
    position: int


@dataclass(frozen=True)
class Strikes:
    """How often somebody sent wrong keys (`kind` "key") or what is not valid ("request"), the last time so long ago."""

    kind: str
    who: str
    strikes: int
    age_s: float


@dataclass(frozen=True)
class Question:
    """Which usage is asked for: days (both included), one key or model; added up by some of `DIMENSIONS`."""

    by: tuple[str, ...] = ("key",)
    since: str = ""
    until: str = ""
    key: str = ""
    model: str = ""


class Ledger:
    """The database; all calls come from one thread.

    `replica` names the account that is kept here: usage of other replicas is kept beside it, under their names.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the database, and see whether all of it can be read.

        Raises:
            sqlite3.Error: it is damaged, or cannot be made.
        """
        self._connection = sqlite3.connect(path or MEMORY, check_same_thread=False, isolation_level=None)
        try:
            self._prepare(in_file=path is not None)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, *, in_file: bool) -> None:
        run = self._connection.execute
        if in_file:
            # Nobody else opens it. So the index of the log lies in memory, and a full disk can still be read.
            run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")  # safe against a power cut: every commit is synced
        there = {row[0] for row in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if there and (found := run("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"quick_check: {found}")
        if not there.issuperset(sql.TABLES):
            self._connection.executescript(sql.SCHEMA)
        if "version" not in {row[1] for row in run("PRAGMA table_info(usage)")}:
            run("ALTER TABLE usage ADD COLUMN version INTEGER NOT NULL DEFAULT 0")
        own = run("SELECT replica, version FROM own").fetchone()
        if own is None:
            own = (uuid.uuid4().hex, 0)
            run("INSERT INTO own VALUES (1, ?, ?)", own)
        self.replica: str = own[0]
        self._version: int = own[1]
        if run("SELECT 1 FROM usage WHERE version = 0 LIMIT 1").fetchone():  # of an earlier release
            rows = run("SELECT day, key, model FROM usage WHERE version = 0").fetchall()
            run("BEGIN IMMEDIATE")
            numbered = [(self._version + number, *row) for number, row in enumerate(rows, 1)]
            self._connection.executemany(
                "UPDATE usage SET version = ? WHERE day = ? AND key = ? AND model = ?", numbered
            )
            run("UPDATE own SET version = ?", (self._version + len(rows),))
            run("COMMIT")
            self._version += len(rows)

    @property
    def version(self) -> int:
        """Return the version of the newest usage that was counted here."""
        return self._version

    def position(self) -> Position:
        """Return how far the spools are absorbed."""
        return Position(*self._connection.execute("SELECT spool, position FROM progress").fetchone())

    def absorb(
        self,
        sums: Mapping[Group, Sums],
        position: Position,
        levels: Mapping[str, Level] | None = None,
        forget_before: str = "",
        strikes: Sequence[Strikes] | None = None,
    ) -> None:
        """Add sums, note how far the spools are in them, and keep the buckets' levels and strikes: all or nothing.

        Raises:
            sqlite3.Error: the disk is full, or fails.
        """
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            rows = [
                (g.day, g.key, g.model, *(getattr(s, name) for name in SUM_FIELDS), self._version + number)
                for number, (g, s) in enumerate(sums.items(), 1)
            ]
            self._connection.executemany(sql.ADD, rows)
            if rows:
                run("UPDATE own SET version = ?", (self._version + len(rows),))
            run("UPDATE progress SET spool = ?, position = ?", (position.spool, position.position))
            if levels is not None:
                run("DELETE FROM levels")
                kept = [
                    (k, v.requests, v.requests_age_s, v.tokens, v.tokens_age_s, time.time()) for k, v in levels.items()
                ]
                self._connection.executemany("INSERT INTO levels VALUES (?, ?, ?, ?, ?, ?)", kept)
                run("DELETE FROM backoffs")
                backoffs = [(k, v.strikes, v.blocked_s, v.refused_age_s) for k, v in levels.items() if v.strikes]
                self._connection.executemany("INSERT INTO backoffs VALUES (?, ?, ?, ?)", backoffs)
            if strikes is not None:
                run("DELETE FROM strikes")
                now = time.time()
                struck = [(s.kind, s.who, s.strikes, s.age_s, now) for s in strikes]
                self._connection.executemany("INSERT OR REPLACE INTO strikes VALUES (?, ?, ?, ?, ?)", struck)
            if forget_before:
                run("DELETE FROM usage WHERE day < ?", (forget_before,))
                run("DELETE FROM heard WHERE day < ?", (forget_before,))
            run("COMMIT")
            self._version += len(rows)
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def levels(self) -> tuple[dict[str, Level], float]:
        """Return the buckets' levels and when they were kept, in seconds since 1970."""
        rows = self._connection.execute(
            "SELECT key, requests, requests_age_s, tokens, tokens_age_s, coalesce(strikes, 0), coalesce(blocked_s, 0), "
            "coalesce(refused_age_s, 0), at FROM levels LEFT JOIN backoffs USING (key)"
        ).fetchall()
        return {row[0]: Level(*row[1:8]) for row in rows}, max((row[8] for row in rows), default=0.0)

    def strikes(self) -> list[Strikes]:
        """Return what was kept of strikes, with their age now."""
        rows = self._connection.execute("SELECT kind, who, strikes, age_s, at FROM strikes").fetchall()
        now = time.time()
        return [Strikes(kind, who, count, age_s + max(0.0, now - at)) for kind, who, count, age_s, at in rows]

    def spent(self, day: str, *, elsewhere: bool = False) -> dict[str, Spent]:
        """Return what each key used on a day and in its month: here, or at the other replicas."""
        question = sql.SPENT_ELSEWHERE if elsewhere else sql.SPENT_HERE
        rows = self._connection.execute(question, {"day": day, "month": day[:7]})
        return {key: Spent(int(a), int(b), float(c), float(d)) for key, a, b, c, d in rows}

    # --- What replicas know of each other -------------------------------------------------------------------------

    def have(self) -> dict[str, int]:
        """Return up to which version the usage of which replica is here."""
        rows = self._connection.execute("SELECT replica, max(version) FROM heard GROUP BY replica")
        return {**dict(rows.fetchall()), self.replica: self._version}

    def beyond(self, replica: str, version: int, most: int) -> list[tuple[int, Group, tuple[float, ...]]]:
        """Return usage of a replica that is newer than a version, the oldest first: version, group, sums."""
        run = self._connection.execute
        if replica == self.replica:
            rows = run(sql.OWN_BEYOND, (version, most)).fetchall()
        else:
            rows = run(sql.HEARD_BEYOND, (replica, version, most)).fetchall()
        return [(row[0], Group(row[1], row[2], row[3]), tuple(row[4:])) for row in rows]

    def hear(self, rows: Iterable[tuple[str, int, Group, Sequence[float]]]) -> None:
        """Keep usage of other replicas: replica, version, group, sums; what is older than what is here changes nothing.

        Raises:
            sqlite3.Error: the disk is full, or fails.
        """
        values = [
            (replica, version, group.day, group.key, group.model, *sums)
            for replica, version, group, sums in rows
            if replica != self.replica
        ]
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(sql.HEAR, values)
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def all(self) -> dict[Group, Sums]:
        """Return all usage that was counted here."""
        rows = self._connection.execute(sql.ALL).fetchall()
        return {Group(*row[:3]): _sums(row[3:]) for row in rows}

    def newest_days(self, until: str, count: int) -> list[str]:
        """Return the newest days with usage, newest first, up to and with `until`."""
        rows = self._connection.execute(
            "SELECT DISTINCT day FROM usage WHERE day <= ? ORDER BY day DESC LIMIT ?", (until, count)
        )
        return [row[0] for row in rows]

    def ask(self, question: Question) -> list[tuple[dict[str, str], Sums]]:
        """Return sums by the dimensions that the question names."""
        asked = {f"by_{name}": name in question.by for name in DIMENSIONS}
        asked |= {name: getattr(question, name) for name in ("since", "until", "key", "model")}
        rows = self._connection.execute(sql.ASK, asked).fetchall()
        return [
            ({name: row[at] for at, name in enumerate(DIMENSIONS) if name in question.by}, _sums(row[3:]))
            for row in rows
        ]

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def _sums(values: Iterable[float]) -> Sums:
    sums = Sums()
    for name, value in zip(SUM_FIELDS, values, strict=True):
        setattr(sums, name, type(getattr(sums, name))(value))
    return sums
