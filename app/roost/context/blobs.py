"""Whole texts behind shortened ones: a store by content, a folder for each owner, so that any byte can be had again."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

PREFIX = "blob:"
DIGITS = 24
REFERENCE = re.compile(rf"^{PREFIX}([0-9a-f]{{{DIGITS}}})$")
OWNER_LIMIT_BYTES = 1_000_000_000
FOLDER_MODE, FILE_MODE = 0o700, 0o600
MARK = "to-sweep"


class BlobNotFoundError(RoostError):
    """There is no such text, or it is another key's: both look the same."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"There is no text {reference!r}.", fix="Use a reference as it stands in the conversation.")


class BlobsFullError(RoostError):
    """The owner's share is used up; nothing of it is thrown away unasked."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The texts kept for this key take all of their {limit} bytes.",
            fix="Purge conversations that are not needed (`roost sessions purge ID`): their texts go within an hour.",
        )


class BlobStore(Protocol):
    """Where whole texts lie. Calls block on the disk: a server makes them in a thread if they are large."""

    def put(self, owner: str, data: bytes) -> str:
        """Keep bytes and return their reference; the same bytes have the same one. Raises BlobsFullError, OSError."""
        ...

    def size(self, owner: str, reference: str) -> int:
        """Return how many bytes there are. Raises BlobNotFoundError."""
        ...

    def get(self, owner: str, reference: str, start: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `start`, or all that follow. Raises BlobNotFoundError."""
        ...

    def remove(self, owner: str, reference: str, unused_s: float = 0.0) -> bool:
        """Forget bytes that nobody put or read for `unused_s` seconds; return whether they are gone now."""
        ...

    def kept(self, owner: str) -> dict[str, float]:
        """Return the references of an owner, and how many seconds ago each was last put or read."""
        ...

    def mark(self, owner: str) -> None:
        """Note, over a restart, that some of an owner's texts may be of no use any more. Raises OSError."""
        ...

    def unmark(self, owner: str) -> None:
        """Take that note back. Raises OSError."""
        ...

    def marked(self) -> list[str]:
        """Return the owners that such a note is about. Raises OSError."""
        ...


def reference_of(data: bytes) -> str:
    """Return the reference of bytes: the first 96 bits of their SHA-256."""
    return PREFIX + hashlib.sha256(data).hexdigest()[:DIGITS]


def _digits(reference: str) -> str:
    match = REFERENCE.match(reference)
    if match is None:
        raise BlobNotFoundError(reference)
    return match.group(1)


def _slice(start: int, length: int | None) -> slice:
    start = max(start, 0)
    return slice(start, None if length is None else start + max(length, 0))


class MemoryBlobs:
    """Texts in memory."""

    def __init__(self, limit: int = OWNER_LIMIT_BYTES) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, str], bytes] = {}
        self._marked: set[str] = set()

    def put(self, owner: str, data: bytes) -> str:
        """Keep bytes; see `BlobStore.put`."""
        reference = reference_of(data)
        if (owner, reference) not in self._kept:
            used = sum(len(kept) for (whose, _), kept in self._kept.items() if whose == owner)
            if used + len(data) > self._limit:
                raise BlobsFullError(self._limit)
            self._kept[owner, reference] = data
        return reference

    def size(self, owner: str, reference: str) -> int:
        """Return the number of bytes."""
        return len(self._found(owner, reference))

    def get(self, owner: str, reference: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes."""
        return self._found(owner, reference)[_slice(start, length)]

    def remove(self, owner: str, reference: str, unused_s: float = 0.0) -> bool:
        """Forget bytes; nothing is known of their age, so those that must be unused for a while stay."""
        if unused_s <= 0:
            self._kept.pop((owner, reference), None)
        return (owner, reference) not in self._kept

    def kept(self, owner: str) -> dict[str, float]:
        """Return references; nothing here is known of their age."""
        return {reference: 0.0 for whose, reference in self._kept if whose == owner}

    def mark(self, owner: str) -> None:
        """Note that some texts may be of no use any more."""
        self._marked.add(owner)

    def unmark(self, owner: str) -> None:
        """Take the note back."""
        self._marked.discard(owner)

    def marked(self) -> list[str]:
        """Return who was noted."""
        return sorted(self._marked)

    def _found(self, owner: str, reference: str) -> bytes:
        try:
            return self._kept[owner, reference]
        except KeyError:
            raise BlobNotFoundError(reference) from None


class FileBlobs:
    """`FOLDER/<SHA-256 of the owner>/<first two digits>/<digits>`; one process writes.

    Names of owners are hashed because they are chosen by people and may hold what a path may not.
    """

    def __init__(
        self,
        folder: Path,
        limit: int = OWNER_LIMIT_BYTES,
        *,
        write: Callable[[Path, bytes], object] | None = None,
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._write = write or (lambda path, data: write_atomic(path, data, mode=FILE_MODE))
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()

    def put(self, owner: str, data: bytes) -> str:
        """Keep bytes, on disk when this returns; see `BlobStore.put`."""
        reference = reference_of(data)
        path = self._path(owner, reference)
        with self._lock:
            if path.exists():
                os.utime(path)  # it is of use again: see `kept`
                return reference
            used = self._used_by(owner)
            if used + len(data) > self._limit:
                raise BlobsFullError(self._limit)
            for folder in (path.parent.parent, path.parent):
                folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._write(path, data)
            self._used[owner] = used + len(data)
        return reference

    def size(self, owner: str, reference: str) -> int:
        """Return the number of bytes."""
        try:
            return self._path(owner, reference).stat().st_size
        except OSError:
            raise BlobNotFoundError(reference) from None

    def get(self, owner: str, reference: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes; only those asked for are read."""
        try:
            with self._path(owner, reference).open("rb") as file:
                with suppress(OSError):  # it is of use; a disk that cannot note that gives it all the same
                    os.utime(file.fileno())
                file.seek(max(start, 0))
                return file.read(-1 if length is None else max(length, 0))
        except FileNotFoundError:
            raise BlobNotFoundError(reference) from None

    def remove(self, owner: str, reference: str, unused_s: float = 0.0) -> bool:
        """Forget bytes unless they were of use lately: looked at under the lock that `put` holds."""
        path = self._path(owner, reference)
        with self._lock:
            try:
                found = path.stat()
                if unused_s > 0 and time.time() - found.st_mtime <= unused_s:
                    return False
                path.unlink()
            except FileNotFoundError:
                return True
            if owner in self._used:
                self._used[owner] -= found.st_size
        return True

    def kept(self, owner: str) -> dict[str, float]:
        """Return references and ages."""
        found: dict[str, float] = {}
        now = time.time()
        for path in self._home(owner).glob("??/*"):
            with suppress(FileNotFoundError):
                if REFERENCE.match(PREFIX + path.name):
                    found[PREFIX + path.name] = now - path.stat().st_mtime
        return found

    def mark(self, owner: str) -> None:
        """Note the owner's name beside the texts, if there are any."""
        home = self._home(owner)
        if home.is_dir():
            write_atomic(home / MARK, owner.encode("utf-8", "surrogatepass"), mode=FILE_MODE)

    def unmark(self, owner: str) -> None:
        """Remove the note."""
        (self._home(owner) / MARK).unlink(missing_ok=True)

    def marked(self) -> list[str]:
        """Return the owners in the notes."""
        return [path.read_bytes().decode("utf-8", "surrogatepass") for path in sorted(self._folder.glob(f"*/{MARK}"))]

    def _home(self, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _path(self, owner: str, reference: str) -> Path:
        digits = _digits(reference)
        return self._home(owner) / digits[:2] / digits

    def _used_by(self, owner: str) -> int:
        """Return the bytes that an owner's texts take, counted once a process."""
        if owner not in self._used:
            self._used[owner] = sum(path.stat().st_size for path in self._home(owner).glob("??/*") if path.is_file())
        return self._used[owner]
