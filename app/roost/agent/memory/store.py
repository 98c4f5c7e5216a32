"""Facts on disk: one SQLite database with an index of words (FTS5) and, where there is a model for it, vectors.

A fact is on disk when `add` returns, also after a power cut. What is forgotten is overwritten, in the index too. The
hub is the only writer. The database is opened when it is first used: a damaged one keeps nothing else from working.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.agent.memory.facts import (
    AGENT,
    MOST_SOURCE_CHARACTERS,
    Fact,
    Kind,
    RefusedError,
    checked,
    private_in,
    sameness,
)
from roost.agent.sessions.index import WORD
from roost.agent.sessions.records import now
from roost.agent.sessions.store import new_id
from roost.agent.storage import MissingError
from roost.context.topics import words
from roost.durable.database import open_database
from roost.ops.errors import NOT_FOUND, RoostError

DATABASE = "memory.sqlite"
MOST_FACTS = 5000
"""Of one key: so many are gone through for their meaning in some tenths of a second."""
FULL = 13
MIGRATIONS = (
    """
    CREATE TABLE fact (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, text TEXT NOT NULL,
        kind TEXT NOT NULL, source TEXT NOT NULL, session TEXT NOT NULL, at TEXT NOT NULL, sensitive INTEGER NOT NULL,
        same TEXT NOT NULL, UNIQUE (owner, same)
    ) STRICT;
    CREATE INDEX fact_owner ON fact (owner, at);
    CREATE TABLE vector (
        number INTEGER PRIMARY KEY REFERENCES fact (number) ON DELETE CASCADE, model TEXT NOT NULL, data BLOB NOT NULL
    ) STRICT;
    CREATE VIRTUAL TABLE word USING fts5 (
        text, content = 'fact', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2'
    );
    CREATE TRIGGER fact_added AFTER INSERT ON fact BEGIN
        INSERT INTO word (rowid, text) VALUES (new.number, new.text);
    END;
    CREATE TRIGGER fact_gone AFTER DELETE ON fact BEGIN
        INSERT INTO word (word, rowid, text) VALUES ('delete', old.number, old.text);
    END
    """,
)
TOO_MANY = "Forget some: `roost memory forget --older-than 365d`."


class FactNotFoundError(MissingError):
    """There is no such fact, or it is another key's: both look the same."""

    code = "fact_not_found"

    def __init__(self, fact: str) -> None:
        super().__init__(f"There is no fact {fact!r}.", fix="See `roost memory list`.", exit_code=NOT_FOUND)


@dataclass(frozen=True)
class Which:
    """Which facts: all conditions that are given hold. `before` is ISO 8601, UTC."""

    ids: tuple[str, ...] = ()
    before: str = ""
    source: str = ""
    session: str = ""
    everything: bool = False

    @property
    def says_something(self) -> bool:
        """Say whether it names anything at all."""
        return bool(self.ids or self.before or self.source or self.session or self.everything)


class FactStore:
    """The database. May be used by several threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DATABASE
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the database if it was opened."""
        with self._lock:
            if self._opened:
                self._opened.close()
                self._opened = None

    def add(
        self, owner: str, text: str, *, source: str, kind: Kind = Kind.FACT, session: str = "", sensitive: bool = False
    ) -> tuple[Fact, bool]:
        """Remember a fact; return it, and whether it is new. One that is known is known as of now.

        Raises:
            RefusedError: it may not be remembered, or there is no more room.
            RoostError: the database cannot be used.
            OSError: the disk is full.
        """
        plain = checked(text)
        where = " ".join(source.split())
        if not where or len(where) > MOST_SOURCE_CHARACTERS:
            raise RefusedError(f"A source has 1 to {MOST_SOURCE_CHARACTERS} characters.", "Name it shorter.")
        marked = int(sensitive or bool(private_in(plain)))
        at = now().isoformat()
        with self._change() as db:
            known = db.execute("SELECT id FROM fact WHERE owner = ? AND same = ?", (owner, sameness(plain))).fetchone()
            if known:
                made = str(known["id"])
                db.execute("UPDATE fact SET at = ?, sensitive = max(sensitive, ?) WHERE id = ?", (at, marked, made))
                if where != AGENT:  # what a model noted is the user's from when the user says it
                    db.execute("UPDATE fact SET source = ? WHERE id = ? AND source = ?", (where, made, AGENT))
                if kind is not Kind.FACT:
                    db.execute("UPDATE fact SET kind = ? WHERE id = ?", (kind.value, made))
            else:
                if db.execute("SELECT count(*) FROM fact WHERE owner = ?", (owner,)).fetchone()[0] >= MOST_FACTS:
                    raise RefusedError(f"{MOST_FACTS} facts are remembered already.", TOO_MANY)
                made = new_id()
                db.execute(
                    "INSERT INTO fact (id, owner, text, kind, source, session, at, sensitive, same)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (made, owner, plain, kind.value, where, session, at, marked, sameness(plain)),
                )
        return self.get(owner, made), not known

    def get(self, owner: str, fact: str) -> Fact:
        """Return a fact.

        Raises:
            FactNotFoundError: it is not the owner's.
        """
        with self._read() as db:
            row = db.execute("SELECT fact.* FROM fact WHERE id = ? AND owner = ?", (fact, owner)).fetchone()
        if row is None:
            raise FactNotFoundError(fact)
        return _fact(row)

    def all_of(self, owner: str, kind: Kind | None = None, *, limit: int = MOST_FACTS) -> list[Fact]:
        """Return an owner's facts, the latest first."""
        with self._read() as db:
            rows = db.execute(
                "SELECT fact.* FROM fact WHERE owner = ?1 AND (?2 = '' OR kind = ?2) ORDER BY at DESC, number DESC"
                " LIMIT ?3",
                (owner, kind.value if kind else "", limit),
            ).fetchall()
        return [_fact(row) for row in rows]

    def by_words(self, owner: str, query: str, limit: int) -> list[Fact]:
        """Return facts that hold any word of a question that tells something, best first (BM25)."""
        match = any_word(query)
        if not match:
            return []
        with self._read() as db:
            rows = db.execute(
                "SELECT fact.* FROM word JOIN fact ON fact.number = word.rowid"
                " WHERE word MATCH ? AND fact.owner = ? ORDER BY word.rank LIMIT ?",
                (match, owner, limit),
            ).fetchall()
        return [_fact(row) for row in rows]

    def without_vector(self, owner: str, model: str, limit: int) -> list[Fact]:
        """Return facts that have no vector of a model, the latest first."""
        with self._read() as db:
            rows = db.execute(
                "SELECT fact.* FROM fact LEFT JOIN vector ON vector.number = fact.number AND vector.model = ?"
                " WHERE fact.owner = ? AND vector.number IS NULL ORDER BY fact.at DESC LIMIT ?",
                (model, owner, limit),
            ).fetchall()
        return [_fact(row) for row in rows]

    def set_vectors(self, owner: str, model: str, vectors: Sequence[tuple[str, array[float]]]) -> None:
        """Keep vectors of facts by their ids; facts that are gone meanwhile are passed over."""
        with self._change() as db:
            for fact, vector in vectors:
                db.execute(
                    "INSERT OR REPLACE INTO vector (number, model, data)"
                    " SELECT number, ?, ? FROM fact WHERE id = ? AND owner = ?",
                    (model, vector.tobytes(), fact, owner),
                )

    def vectors(self, owner: str, model: str) -> list[tuple[str, array[float]]]:
        """Return the vectors of an owner's facts by their ids."""
        with self._read() as db:
            rows = db.execute(
                "SELECT fact.id, vector.data FROM vector JOIN fact ON fact.number = vector.number"
                " WHERE fact.owner = ? AND vector.model = ?",
                (owner, model),
            ).fetchall()
        return [(row["id"], array("f", row["data"])) for row in rows]

    def forget(self, owner: str, which: Which, *, dry_run: bool = False) -> list[Fact]:
        """Forget facts for good; return what they were. With `dry_run` they stay.

        Raises:
            FactNotFoundError: one of the ids is not the owner's; then nothing is forgotten.
        """
        if not which.says_something:
            return []
        found = {fact.id: fact for fact in self.all_of(owner)}
        for one in which.ids:
            if one not in found:
                raise FactNotFoundError(one)
        doomed = [
            fact
            for fact in found.values()
            if (not which.ids or fact.id in which.ids)
            and (not which.before or fact.at < which.before)
            and (not which.source or fact.source == which.source)
            and (not which.session or fact.session == which.session)
        ]
        if doomed and not dry_run:
            with self._change() as db:
                db.executemany("DELETE FROM fact WHERE id = ?", [(fact.id,) for fact in doomed])
                db.execute("INSERT INTO word (word) VALUES ('optimize')")  # or its segments keep the words
        return doomed

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            yield self._database()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            db = self._database()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            db = open_database(self._path, MIGRATIONS)
            try:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA secure_delete = ON")
                _check(db)
            except BaseException:
                db.close()
                raise
            self._opened = db
        return self._opened

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what is wrong with a database that cannot be used.

        Raises:
            OSError: the disk is full.
            RoostError: it is damaged.
        """
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == FULL:
                raise OSError(28, f"No space left for {self._path}") from None
            raise RoostError(
                f"What is remembered in {self._path} cannot be used: {error}.",
                fix=f"Put a backup of it back, or move {self._path} away: memory begins anew, all else goes on.",
            ) from None


def _check(db: sqlite3.Connection) -> None:
    faults = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if faults != "ok":
        raise sqlite3.DatabaseError(faults)


def any_word(query: str) -> str:
    """Return an FTS5 query for any word of a question that tells something, as beginnings; '' if there is none."""
    telling = words(query) or WORD.findall(query)
    return " OR ".join(f'"{part}"*' for word in dict.fromkeys(telling) for part in WORD.findall(word))


def _fact(row: sqlite3.Row) -> Fact:
    return Fact(
        id=row["id"], text=row["text"], kind=Kind(row["kind"]), source=row["source"], session=row["session"],
        at=row["at"], sensitive=bool(row["sensitive"]),
    )  # fmt: skip
