"""Where conversations are kept: `SessionStore`, and the one on files.

A conversation belongs to the key that began it, by the key's name: a renewed key of the same name keeps it, and to
every other key it does not exist.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from roost.agent.sessions import log_file
from roost.agent.sessions.index import Hit, Index, SessionInfo
from roost.agent.sessions.log_file import BROKEN, Contents
from roost.agent.sessions.records import Begin, Body, Record, TitleBody, UnreadableError, parse
from roost.agent.storage import MissingError
from roost.ops.errors import NOT_FOUND
from roost.ops.files import sync_folder

ID = re.compile(r"^[0-9a-z]{16}$")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SUFFIX = ".jsonl"
FOLDER_MODE = 0o700
Seen = dict[tuple[int, int], tuple[int, int]]
"""Files that were read: device and inode; size and time of the last change then, in nanoseconds."""


class SessionNotFoundError(MissingError):
    """There is no such conversation, or it is another key's: both look the same."""

    code = "session_not_found"

    def __init__(self, session: str) -> None:
        super().__init__(
            f"There is no conversation {session!r}.", fix="See `roost sessions list --all`.", exit_code=NOT_FOUND
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

    def lines(self, owner: str, seen: Seen) -> Iterator[bytes]:
        """Yield every line on disk that is an owner's, or may be, of files that changed since `seen`, which is updated.

        What a crash cut off comes without an end of line. Raises OSError.
        """
        ...

    def at_rest(self) -> AbstractContextManager[object]:
        """Hold up all changes, of whatever conversation, in a context."""
        ...


class FileSessionStore:
    """`FOLDER/ID.jsonl` for each conversation, `FOLDER/archive/` for those put away, `FOLDER/index.sqlite`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = folder / "archive"
        for place in (folder, self._archive):
            place.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = threading.RLock()
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

    def lines(self, owner: str, seen: Seen) -> Iterator[bytes]:
        """Yield lines of the files, whether the index knows them or not; see `SessionStore.lines`.

        Raises:
            OSError: a file that is there cannot be read.
        """
        with self._lock:
            # no glob: that takes a folder which cannot be read for an empty one
            names = {path.name for place in (self._folder, self._archive) for path in place.iterdir()}
        for name in sorted(name for name in names if name.endswith((SUFFIX, BROKEN))):
            for file in self._open(name):
                with file:
                    found = os.fstat(file.fileno())
                    place, state = (found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns)
                    if seen.get(place) != state:
                        seen[place] = state
                        yield from _lines_of(file, owner, cut_off=name.endswith(BROKEN))

    def at_rest(self) -> AbstractContextManager[object]:
        """Hold up all changes in a context; whoever holds it may read."""
        return self._lock

    def _open(self, name: str) -> list[BinaryIO]:
        """Open a file wherever it lies: none moves meanwhile. None of them is there if it was removed."""
        found: list[BinaryIO] = []
        with self._lock:
            for place in (self._folder, self._archive):
                with suppress(FileNotFoundError):
                    found.append((place / name).open("rb"))
        return found

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


def _lines_of(file: BinaryIO, owner: str, *, cut_off: bool) -> Iterator[bytes]:
    """Yield a file's lines unless it says that it is another owner's."""
    for number, line in enumerate(file):
        if cut_off:
            yield line.rstrip(b"\n")
            continue
        if not number:
            with suppress(UnreadableError):
                body = parse(line).body
                if isinstance(body, Begin) and body.owner != owner:
                    return
        yield line


def new_id() -> str:
    """Return an id that nobody can guess: 80 bits in letters and digits that cannot be mistaken for one another."""
    return "".join(secrets.choice(ALPHABET) for _ in range(16))
