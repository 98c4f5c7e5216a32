"""Where the keys of the API are kept: a Nomad variable that only the agent's job may read, or a file.

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
from pathlib import Path
from typing import Protocol

from roost.fleet.jobs import KEYS_ITEM, KEYS_VARIABLE
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.api_keys import Change, KeyDocument, parse_document
from roost.ops.errors import RoostError

ATTEMPTS = 20
PAUSE_S = 0.05
CONFLICT, NOT_FOUND, TOO_LARGE = 409, 404, 413
ABSENT = "0"


class ConflictError(RoostError):
    """Somebody else changed the keys between our reading and our writing."""


class KeyStore(Protocol):
    """Where the document lies."""

    def load(self) -> tuple[KeyDocument, str]:
        """Return the document and its version; without one an empty document and `ABSENT`."""
        ...

    def save(self, document: KeyDocument, version: str, /) -> None:
        """Replace the document if it still has that version.

        Raises:
            ConflictError: it has not.
        """
        ...


class NomadKeyStore:
    """The document as an item of a Nomad variable."""

    def __init__(self, client: NomadClient) -> None:
        self._client = client

    def load(self) -> tuple[KeyDocument, str]:
        """Read the variable."""
        try:
            found = self._client.get(f"var/{KEYS_VARIABLE}") or {}
        except NomadRefusedError as error:
            if error.status != NOT_FOUND:
                raise
            return KeyDocument(), ABSENT
        return _parsed(str((found.get("Items") or {}).get(KEYS_ITEM, "")), KEYS_VARIABLE), str(found["ModifyIndex"])

    def save(self, document: KeyDocument, version: str) -> None:
        """Write the variable with check-and-set."""
        body = {"Namespace": "default", "Path": KEYS_VARIABLE, "Items": {KEYS_ITEM: document.text()}}
        try:
            self._client.put(f"var/{KEYS_VARIABLE}", body, cas=version)
        except NomadRefusedError as error:
            if error.status == CONFLICT:
                raise ConflictError("The keys were changed by somebody else.", fix="Run it again.") from None
            if error.status == TOO_LARGE or "limited to" in error.text:
                raise RoostError(
                    f"Nomad takes no more keys: {error.text.strip()}",
                    fix="Forget revoked ones: `roost keys revoke NAME --purge`.",
                ) from None
            raise


class FileKeyStore:
    """The document as a file, for a gateway without Nomad (`ROOST_KEYS_FILE`)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> tuple[KeyDocument, str]:
        """Read the file."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return KeyDocument(), ABSENT
        except OSError as error:
            raise RoostError(f"{self._path} cannot be read: {error.strerror}.", fix="Run it as its owner.") from None
        return _parsed(raw.decode(errors="replace"), str(self._path)), hashlib.sha256(raw).hexdigest()

    def save(self, document: KeyDocument, version: str) -> None:
        """Write beside it and rename, under a lock; owner and mode stay."""
        try:
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.load()[1] != version:
                    raise ConflictError("The keys were changed by somebody else.", fix="Run it again.")
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


def update(store: KeyStore, change: Change, *, pause: Callable[[float], None] = time.sleep) -> KeyDocument:
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
    raise ConflictError("Others change the keys all the time.", fix="Run it again.")


def ensure_variable_exists(client: NomadClient, *, dry_run: bool = False) -> bool:
    """Make the variable unless it is there, so that the agent's template finds one; say whether it was missing."""
    store = NomadKeyStore(client)
    if store.load()[1] != ABSENT:
        return False
    if not dry_run:
        try:
            store.save(KeyDocument(), ABSENT)
        except ConflictError:
            return False
    return True


def _parsed(text: str, where: str) -> KeyDocument:
    try:
        return parse_document(text)
    except ValueError:
        raise RoostError(
            f"The keys in {where} are not in a form that this release knows.",
            fix="Use the release that wrote them, or a newer one.",
        ) from None
