"""Where a small document of the gateway is kept: an item of a Nomad variable that only the agent's job may read, or a
file.

Both are changed by check-and-set, so that of two changes at once none is lost.
Variables: https://developer.hashicorp.com/nomad/api-docs/variables/variables
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import RoostError

ATTEMPTS = 20
PAUSE_S = 0.05
CONFLICT, NOT_FOUND, TOO_LARGE = 409, 404, 413
ABSENT = "0"


class Document(Protocol):
    """What can be kept."""

    def text(self) -> str:
        """Return it as text, secrets included."""
        ...


D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Kind(Generic[D]):
    """A kind of document: what its content is called, where it lies, how it is read, what to do when it is full."""

    what: str
    variable: str
    item: str
    parse: Callable[[str], D]
    room: str

    def parsed(self, text: str, where: str) -> D:
        """Read a document; nothing at all is an empty one.

        Raises:
            RoostError: another release wrote it.
        """
        try:
            return self.parse(text)
        except ValueError:
            raise RoostError(
                f"The {self.what} in {where} are not in a form that this release knows.",
                fix="Use the release that wrote them, or a newer one.",
            ) from None

    def conflict(self) -> ConflictError:
        """Return the error of a lost race."""
        return ConflictError(f"The {self.what} were changed by somebody else.", fix="Run it again.")

    def full(self, said: str) -> RoostError:
        """Return the error of a variable that is full."""
        return RoostError(f"Nomad takes no more {self.what}: {said.strip()}", fix=self.room)


class ConflictError(RoostError):
    """Somebody else changed the document between our reading and our writing."""


class Store(Protocol[D]):
    """Where a document lies."""

    def load(self) -> tuple[D, str]:
        """Return the document and its version; without one an empty document and `ABSENT`."""
        ...

    def save(self, document: D, version: str, /) -> None:
        """Replace the document if it still has that version.

        Raises:
            ConflictError: it has not.
        """
        ...


class NomadStore(Generic[D]):
    """The document as an item of a Nomad variable."""

    def __init__(self, client: NomadClient, kind: Kind[D]) -> None:
        self._client = client
        self._kind = kind

    def load(self) -> tuple[D, str]:
        """Read the variable."""
        variable = self._kind.variable
        try:
            found = self._client.get(f"var/{variable}") or {}
        except NomadRefusedError as error:
            if error.status != NOT_FOUND:
                raise
            return self._kind.parsed("", variable), ABSENT
        text = str((found.get("Items") or {}).get(self._kind.item, ""))
        return self._kind.parsed(text, variable), str(found["ModifyIndex"])

    def save(self, document: D, version: str) -> None:
        """Write the variable with check-and-set."""
        variable = self._kind.variable
        body = {"Namespace": "default", "Path": variable, "Items": {self._kind.item: document.text()}}
        try:
            self._client.put(f"var/{variable}", body, cas=version)
        except NomadRefusedError as error:
            if error.status == CONFLICT:
                raise self._kind.conflict() from None
            if error.status == TOO_LARGE or "limited to" in error.text:
                raise self._kind.full(error.text) from None
            raise


class FileStore(Generic[D]):
    """The document as a file, for a gateway without Nomad."""

    def __init__(self, path: Path, kind: Kind[D]) -> None:
        self._path = path
        self._kind = kind

    def load(self) -> tuple[D, str]:
        """Read the file."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return self._kind.parsed("", str(self._path)), ABSENT
        except OSError as error:
            raise RoostError(f"{self._path} cannot be read: {error.strerror}.", fix="Run it as its owner.") from None
        return self._kind.parsed(raw.decode(errors="replace"), str(self._path)), hashlib.sha256(raw).hexdigest()

    def save(self, document: D, version: str) -> None:
        """Write beside it and rename, under a lock; owner and mode stay."""
        try:
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.load()[1] != version:
                    raise self._kind.conflict()
                self._write(document.text())
        except OSError as error:
            raise RoostError(
                f"{self._path} cannot be written: {error.strerror}.", fix="Run it as the owner of that folder."
            ) from None

    def _write(self, text: str) -> None:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w") as new:
                if self._path.exists():
                    kept = self._path.stat()
                    os.fchmod(new.fileno(), kept.st_mode & 0o777)
                    os.fchown(new.fileno(), kept.st_uid, kept.st_gid)
                new.write(text + "\n")
                new.flush()
                os.fsync(new.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def update(store: Store[D], change: Callable[[D], D], *, pause: Callable[[float], None] = time.sleep) -> D:
    """Apply a change to the newest document, again and again while others change it; return what is stored now.

    Raises:
        RoostError: the change is not possible, or others never stop.
    """
    for attempt in range(ATTEMPTS):
        document, version = store.load()
        wanted = change(document)
        if wanted == document and version != ABSENT:
            return document
        try:
            store.save(wanted, version)
        except ConflictError:
            pause(PAUSE_S * (attempt + 1))
            continue
        return wanted
    raise ConflictError("Others change it all the time.", fix="Run it again.")


def ensure_exists(store: Store[D], *, dry_run: bool = False) -> bool:
    """Make an empty document unless there is one, so that the agent's template finds it; say whether it was missing."""
    document, version = store.load()
    if version != ABSENT:
        return False
    if not dry_run:
        try:
            store.save(document, ABSENT)
        except ConflictError:
            return False
    return True
