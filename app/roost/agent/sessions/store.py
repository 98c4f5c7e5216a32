"""Where conversations are kept: `SessionStore`, and the one on files.

A conversation belongs to the key that began it, by the key's name: a renewed key of the same name keeps it, and to
every other key it does not exist.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import threading
from pathlib import Path
from typing import Protocol

from roost.agent.sessions import log_file
from roost.agent.sessions.index import Hit, Index, SessionInfo
from roost.agent.sessions.log_file import BROKEN, Contents
from roost.agent.sessions.records import Begin, Body, Record, TitleBody
from roost.agent.storage import MissingError
from roost.ops.files import sync_folder

ID = re.compile(r"^[0-9a-z]{16}$")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SUFFIX = ".jsonl"
FOLDER_MODE = 0o700
NO_SESSION = 6


class SessionNotFoundError(MissingError):
    """There is no such conversation, or it is another key's: both look the same."""

    code = "session_not_found"

    def __init__(self, session: str) -> None:
        super().__init__(
            f"There is no conversation {session!r}.", fix="See `roost sessions list --all`.", exit_code=NO_SESSION
        )


class SessionStore(Protocol):
    """Conversations by owner. Calls block on the disk: a server makes them in a thread."""

    def create(self, owner: str, title: str = "") -> SessionInfo:
        """Begin a conversation."""
        ...

    def append(self, owner: str, session: str, *bodies: Body) -> list[Record]:
        """Add records; they are on disk when this returns. Raises SessionNotFoundError, OSError."""
        ...

    def read(self, owner: str, session: str, after: int = 0, limit: int | None = None) -> Contents:
        """Return the records numbered above `after`, at most `limit`. Raises SessionNotFoundError."""
        ...

    def info(self, owner: str, session: str) -> SessionInfo:
        """Return the conversation's line. Raises SessionNotFoundError."""
        ...

    def sessions(self, owner: str, *, archived: bool = False) -> list[SessionInfo]:
        """Return the owner's conversations, the latest first."""
        ...

    def search(self, owner: str, words: str, limit: int = 20) -> list[Hit]:
        """Return messages of the owner that hold the words, best first."""
        ...

    def archive(self, owner: str, session: str, *, archived: bool = True) -> SessionInfo:
        """Put a conversation away, or take it out again. Raises SessionNotFoundError."""
        ...

    def purge(self, owner: str, session: str) -> None:
        """Remove a conversation for good. Raises SessionNotFoundError."""
        ...


class FileSessionStore:
    """`FOLDER/ID.jsonl` for each conversation, `FOLDER/archive/` for those put away, `FOLDER/index.sqlite`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = folder / "archive"
        for place in (folder, self._archive):
            place.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._index = Index(folder / "index.sqlite")
        kept = {path.stem for place in (folder, self._archive) for path in place.glob(f"*{SUFFIX}")}
        if self._index.empty or kept != self._index.ids():  # a crash may have come between a file and its line there
            self.reindex()

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def create(self, owner: str, title: str = "") -> SessionInfo:
        """Begin a conversation.

        Raises:
            OSError, sqlite3.Error: the disk is full, or failed; then there is none, and no file of it.
        """
        session = new_id()
        path = self._path(session, archived=False)
        with self._lock:
            begin: list[Body] = [Begin(session=session, owner=owner)]
            if title:
                begin.append(TitleBody(title=title))
            try:
                made = log_file.append(path, begin)
                self._index.add(made, session, archived=False)
            except (OSError, sqlite3.Error):
                path.unlink(missing_ok=True)
                raise
        return self.info(owner, session)

    def append(self, owner: str, session: str, *bodies: Body) -> list[Record]:
        """Add records; they are on disk when this returns.

        Raises:
            SessionNotFoundError: it is not the owner's.
            OSError: the disk is full, or failed; then nothing was added.
        """
        with self._lock:
            path = self._known(owner, session)
            made = log_file.append(path, bodies)
            self._index.add(made, session, archived=path.parent == self._archive)
        return made

    def read(self, owner: str, session: str, after: int = 0, limit: int | None = None) -> Contents:
        """Return the records numbered above `after`, at most `limit`.

        Raises:
            SessionNotFoundError: it is not the owner's.
        """
        with self._lock:
            path = self._known(owner, session)
        return log_file.read(path, after, limit)

    def info(self, owner: str, session: str) -> SessionInfo:
        """Return the conversation's line.

        Raises:
            SessionNotFoundError: it is not the owner's.
        """
        with self._lock:
            found = self._index.get(owner, session)
        if found is None:
            raise SessionNotFoundError(session)
        return found

    def sessions(self, owner: str, *, archived: bool = False) -> list[SessionInfo]:
        """Return the owner's conversations, the latest first."""
        with self._lock:
            return self._index.all_of(owner, archived=archived)

    def search(self, owner: str, words: str, limit: int = 20) -> list[Hit]:
        """Return messages of the owner that hold the words, best first."""
        with self._lock:
            return self._index.search(owner, words, limit)

    def archive(self, owner: str, session: str, *, archived: bool = True) -> SessionInfo:
        """Put a conversation away, or take it out again.

        Raises:
            SessionNotFoundError: it is not the owner's.
        """
        with self._lock:
            path = self._known(owner, session)
            target = self._path(session, archived=archived)
            if path != target:
                path.rename(target)
                sync_folder(target.parent)
                sync_folder(path.parent)
            self._index.set_archived(session, archived=archived)
        return self.info(owner, session)

    def purge(self, owner: str, session: str) -> None:
        """Remove a conversation for good, and what a crash had cut off of it.

        Raises:
            SessionNotFoundError: it is not the owner's.
        """
        with self._lock:
            path = self._known(owner, session)
            path.with_name(path.name + BROKEN).unlink(missing_ok=True)
            path.unlink()
            sync_folder(path.parent)
            self._index.drop(session)

    def reindex(self) -> int:
        """Bring the index up to the files: add what is missing, forget what is gone; return how many there are."""
        with self._lock:
            found: set[str] = set()
            for folder, archived in ((self._folder, False), (self._archive, True)):
                for path in folder.glob(f"*{SUFFIX}"):
                    try:
                        records = log_file.read(path).records
                    except OSError:  # it stays out until it can be read
                        continue
                    if records and isinstance(records[0].body, Begin) and records[0].body.session == path.stem:
                        found.add(path.stem)
                        self._index.add(records, path.stem, archived=archived)
                        self._index.set_archived(path.stem, archived=archived)
            for session in self._index.ids() - found:
                self._index.drop(session)
            return len(found)

    def _path(self, session: str, *, archived: bool) -> Path:
        return (self._archive if archived else self._folder) / f"{session}{SUFFIX}"

    def _known(self, owner: str, session: str) -> Path:
        found = self._index.get(owner, session) if ID.match(session) else None
        if found is None:
            raise SessionNotFoundError(session)
        path = self._path(session, archived=found.archived)
        if not path.exists():  # a crash between the move of a file and the index's note of it, or a removal by hand
            path = self._path(session, archived=not found.archived)
        if not path.exists():
            self._index.drop(session)
            raise SessionNotFoundError(session)
        return path


def new_id() -> str:
    """Return an id that nobody can guess: 80 bits in letters and digits that cannot be mistaken for one another."""
    return "".join(secrets.choice(ALPHABET) for _ in range(16))
