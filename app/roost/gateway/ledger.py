"""Sums of usage by day, key and model in SQLite.

One connection: SQLite before 3.51.3 may corrupt a write-ahead log that two of them write.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from roost.gateway.limits import Level, Spent
from roost.gateway.usage import SUM_FIELDS, Group, Sums

MEMORY = ":memory:"
DIMENSIONS = ("day", "key", "model")
SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    day TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, failed INTEGER NOT NULL, estimated INTEGER NOT NULL,
    prompt INTEGER NOT NULL, cached INTEGER NOT NULL, completion INTEGER NOT NULL,
    engine_ms REAL NOT NULL, cost REAL NOT NULL, energy_j REAL NOT NULL,
    PRIMARY KEY (day, key, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), spool INTEGER, position INTEGER);
CREATE TABLE IF NOT EXISTS levels (
    key TEXT PRIMARY KEY, requests REAL, requests_age_s REAL, tokens REAL, tokens_age_s REAL, at REAL NOT NULL
);
INSERT OR IGNORE INTO progress VALUES (1, 0, 0);
"""
ADD = """
INSERT INTO usage (day, key, model, requests, failed, estimated, prompt, cached, completion, engine_ms, cost, energy_j)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, key, model) DO UPDATE SET
    requests = requests + excluded.requests, failed = failed + excluded.failed,
    estimated = estimated + excluded.estimated, prompt = prompt + excluded.prompt,
    cached = cached + excluded.cached, completion = completion + excluded.completion,
    engine_ms = engine_ms + excluded.engine_ms, cost = cost + excluded.cost, energy_j = energy_j + excluded.energy_j
"""
ASK = """
SELECT iif(:by_day, day, ''), iif(:by_key, key, ''), iif(:by_model, model, ''),
    sum(requests), sum(failed), sum(estimated), sum(prompt), sum(cached), sum(completion),
    sum(engine_ms), sum(cost), sum(energy_j)
FROM usage
WHERE (:since = '' OR day >= :since) AND (:until = '' OR day <= :until)
    AND (:key = '' OR key = :key) AND (:model = '' OR model = :model)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
SPENT = """
SELECT key, sum((prompt + completion) * (day = :day)), sum(prompt + completion), sum(cost * (day = :day)), sum(cost)
FROM usage WHERE substr(day, 1, 7) = :month GROUP BY key
"""


@dataclass(frozen=True)
class Position:
    """How far the spools are in the sums: all before `spool`, and that one up to the byte `position`."""

    spool: int
    position: int


@dataclass(frozen=True)
class Question:
    """Which usage is asked for: days (both included), one key or model; added up by some of `DIMENSIONS`."""

    by: tuple[str, ...] = ("key",)
    since: str = ""
    until: str = ""
    key: str = ""
    model: str = ""


class Ledger:
    """The database; all calls come from one thread."""

    def __init__(self, path: Path | None) -> None:
        self._connection = sqlite3.connect(path or MEMORY, check_same_thread=False, isolation_level=None)
        # Safe against a power cut: every commit is synced.
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)

    def position(self) -> Position:
        """Return how far the spools are absorbed."""
        return Position(*self._connection.execute("SELECT spool, position FROM progress").fetchone())

    def absorb(
        self,
        sums: Mapping[Group, Sums],
        position: Position,
        levels: Mapping[str, Level] | None = None,
        forget_before: str = "",
    ) -> None:
        """Add sums, note how far the spools are in them, and keep the buckets' levels: all or nothing.

        Raises:
            sqlite3.Error: the disk is full, or fails.
        """
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            rows = [(g.day, g.key, g.model, *(getattr(s, name) for name in SUM_FIELDS)) for g, s in sums.items()]
            self._connection.executemany(ADD, rows)
            run("UPDATE progress SET spool = ?, position = ?", (position.spool, position.position))
            if levels is not None:
                run("DELETE FROM levels")
                kept = [
                    (k, v.requests, v.requests_age_s, v.tokens, v.tokens_age_s, time.time()) for k, v in levels.items()
                ]
                self._connection.executemany("INSERT INTO levels VALUES (?, ?, ?, ?, ?, ?)", kept)
            if forget_before:
                run("DELETE FROM usage WHERE day < ?", (forget_before,))
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def levels(self) -> tuple[dict[str, Level], float]:
        """Return the buckets' levels and when they were kept, in seconds since 1970."""
        rows = self._connection.execute("SELECT * FROM levels").fetchall()
        return {row[0]: Level(*row[1:5]) for row in rows}, max((row[5] for row in rows), default=0.0)

    def spent(self, day: str) -> dict[str, Spent]:
        """Return what each key used on a day and in its month."""
        rows = self._connection.execute(SPENT, {"day": day, "month": day[:7]})
        return {key: Spent(int(a), int(b), float(c), float(d)) for key, a, b, c, d in rows}

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
        rows = self._connection.execute(ASK, asked).fetchall()
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
