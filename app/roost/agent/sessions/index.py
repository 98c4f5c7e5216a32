"""The index of conversations: what there is, and words to search. Made of the files, and made anew from them at need.

Searched are what user and assistant said, the last `MESSAGES` messages of a conversation with `CHARACTERS` characters
each. SQLite with FTS5 (https://www.sqlite.org/fts5.html), in its rollback journal: one process writes, and a lost index
costs a rebuild and nothing else.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.agent.sessions.records import Begin, MessageBody, Record, TitleBody, title_of

MESSAGES = 50
CHARACTERS = 500
SCHEMA = 1
DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
WORD = re.compile(r"\w+", re.UNICODE)
TABLES = """
CREATE TABLE session (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL,
    messages INTEGER NOT NULL, last_seq INTEGER NOT NULL, archived INTEGER NOT NULL
);
CREATE INDEX session_owner ON session (owner, updated);
CREATE VIRTUAL TABLE said USING fts5 (
    text, session UNINDEXED, seq UNINDEXED, role UNINDEXED, tokenize = 'unicode61 remove_diacritics 2'
);
"""


@dataclass(frozen=True)
class SessionInfo:
    """A conversation as a line of a list. Times are ISO 8601, UTC."""

    id: str
    owner: str
    title: str
    created: str
    updated: str
    messages: int
    last_seq: int
    archived: bool


@dataclass(frozen=True)
class Hit:
    """A message that holds the words: `snippet` has them in `[` and `]`."""

    session: str
    title: str
    seq: int
    role: str
    snippet: str


class Index:
    """The database. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.empty = False
        """Whether it was made just now, and wants filling."""
        self._db = self._opened()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, records: Sequence[Record], session: str, *, archived: bool) -> None:
        """Take in records of a conversation; those that are known already change nothing."""
        with self._change() as db:
            row = db.execute("SELECT last_seq FROM session WHERE id = ?", (session,)).fetchone()
            known = row[0] if row else 0
            for record in records:
                if record.seq > known:
                    self._add_one(db, session, record, archived=archived)
            db.execute(
                "DELETE FROM said WHERE session = ?1 AND rowid NOT IN"
                " (SELECT rowid FROM said WHERE session = ?1 ORDER BY seq DESC LIMIT ?2)",
                (session, MESSAGES),
            )

    def drop(self, session: str) -> None:
        """Forget a conversation."""
        with self._change() as db:
            db.execute("DELETE FROM said WHERE session = ?", (session,))
            db.execute("DELETE FROM session WHERE id = ?", (session,))

    def set_archived(self, session: str, *, archived: bool) -> None:
        """Note whether a conversation is put away."""
        with self._change() as db:
            db.execute("UPDATE session SET archived = ? WHERE id = ?", (int(archived), session))

    def ids(self) -> set[str]:
        """Return the ids of all conversations, whoever owns them."""
        return {row[0] for row in self._db.execute("SELECT id FROM session")}

    def get(self, owner: str, session: str) -> SessionInfo | None:
        """Return a conversation if it belongs to that owner."""
        rows = self._db.execute("SELECT * FROM session WHERE id = ? AND owner = ?", (session, owner))
        return next(map(_info, rows), None)

    def all_of(self, owner: str, *, archived: bool) -> list[SessionInfo]:
        """Return an owner's conversations, the latest first."""
        rows = self._db.execute(
            "SELECT * FROM session WHERE owner = ? AND archived = ? ORDER BY updated DESC, id", (owner, int(archived))
        )
        return [_info(row) for row in rows]

    def search(self, owner: str, words: str, limit: int) -> list[Hit]:
        """Return messages that hold all the words (the last one may be a beginning), best first."""
        query = fts_query(words)
        if not query:
            return []
        rows = self._db.execute(
            "SELECT said.session, session.title, said.seq, said.role, snippet(said, 0, '[', ']', '…', 16)"
            " FROM said JOIN session ON session.id = said.session"
            " WHERE said MATCH ? AND session.owner = ? ORDER BY rank LIMIT ?",
            (query, owner, limit),
        )
        return [Hit(*row) for row in rows]

    @staticmethod
    def _add_one(db: sqlite3.Connection, session: str, record: Record, *, archived: bool) -> None:
        at, body = record.at.isoformat(), record.body
        if isinstance(body, Begin):
            db.execute(
                "INSERT INTO session VALUES (?, ?, '', ?, ?, 0, 0, ?)",
                (session, body.owner, at, at, int(archived)),
            )
        db.execute("UPDATE session SET updated = ?, last_seq = ? WHERE id = ?", (at, record.seq, session))
        if isinstance(body, TitleBody):
            db.execute("UPDATE session SET title = ? WHERE id = ?", (body.title, session))
        if isinstance(body, MessageBody) and body.role in ("user", "assistant"):
            db.execute("UPDATE session SET messages = messages + 1 WHERE id = ?", (session,))
            if body.role == "user":
                db.execute(
                    "UPDATE session SET title = ? WHERE id = ? AND title = ''",
                    (title_of(body.text), session),
                )
            db.execute(
                "INSERT INTO said (text, session, seq, role) VALUES (?, ?, ?, ?)",
                (body.text[:CHARACTERS], session, record.seq, body.role),
            )

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._db:
            yield self._db

    def _opened(self) -> sqlite3.Connection:
        """Open the database; one that is damaged or of another release is made anew."""
        for again in (False, True):
            db = sqlite3.connect(self._path, check_same_thread=False)
            try:
                db.execute("PRAGMA synchronous = NORMAL")
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found == SCHEMA:
                    with closing(db.execute("SELECT count(*) FROM session")) as rows:
                        rows.fetchone()
                    return db
                if found == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
                    self.empty = True
                    return db
            except sqlite3.DatabaseError as error:
                db.close()
                if again or error.sqlite_errorcode not in DAMAGED:
                    raise
            db.close()
            self._path.unlink()
        raise AssertionError(self._path)


def fts_query(words: str) -> str:
    """Return an FTS5 query for words as a user types them: all of them, the last one as a beginning; '' for none."""
    found = WORD.findall(words)
    quoted: Iterable[str] = (f'"{word}"' for word in found)
    return " ".join(quoted) + ("*" if found else "")


def _info(row: tuple[str, str, str, str, str, int, int, int]) -> SessionInfo:
    """Return a row of table `session`, whose columns are the fields in their order."""
    return SessionInfo(*row[:7], bool(row[7]))
