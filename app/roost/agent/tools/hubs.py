"""The hubs that a user's workers know: which identity answered at an address, for which key, the first time.

What a user gave to conversations of one hub is not given to another that answers in its place. Where there is no hub,
or one that does not say which it is, an identity stands for the address that is made here at random: no hub can say it,
as theirs are hex digits only, and the first hub that answers at that address takes its place.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from roost.ops.errors import OTHER_HUB, RoostError
from roost.ops.file_lock import locked
from roost.ops.files import write_atomic
from roost.ops.validation import in_words

KNOWN: TypeAdapter[dict[str, dict[str, str]]] = TypeAdapter(dict[str, dict[str, str]])
SHORT_DIGITS = 16
LOCAL = "local-"
"""What an identity begins with that is made here."""
LOCAL_BYTES = 16


class KnownHubs:
    """The list, in one file: address -> name of the key -> identity."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def seen(self, address: str, owner: str) -> str:
        """Return which identity answered there for a key; '' if none did yet."""
        return self._load().get(address, {}).get(owner, "")

    def pin(self, address: str, owner: str, identity: str) -> str:
        """Keep the identity that answers at an address for a key; return the local one that it replaces, '' if none.

        Raises:
            RoostError: another hub answered before.
        """
        if self.seen(address, owner) == identity:
            return ""
        with locked(self._file):
            found = self._load()
            before = found.get(address, {}).get(owner, "")
            if before not in ("", identity) and not is_local(before):
                raise RoostError(
                    f"What answers at {address} is not the hub that was there before: its identity for the key {owner} "
                    "is another. It gets none of your folders.",
                    fix="Check ROOST_API. If it is that hub, set up anew without its old state: `roost workspace "
                    "trust`.",
                    exit_code=OTHER_HUB,
                )
            self._keep(found, address, owner, identity)
        return "" if before == identity else before

    def local(self, address: str, owner: str) -> str:
        """Return the identity that stands for an address at which no hub says which it is.

        Raises:
            RoostError: one did before: whoever keeps silent is not taken for it.
        """
        if is_local(before := self.seen(address, owner)):
            return before
        with locked(self._file):
            found = self._load()
            before = found.get(address, {}).get(owner, "")
            if before and not is_local(before):
                raise RoostError(
                    f"No hub answers at {address}, where one did before; what does gets none of your folders.",
                    fix="Give ROOST_API the address of the machine that runs the agent. If it runs none any more, or "
                    "an older release: `roost workspace trust`.",
                )
            identity = before or made_here()
            self._keep(found, address, owner, identity)
        return identity

    def trust(self, address: str, owner: str, identity: str) -> str:
        """Take an identity in the place of the one before; return that, '' if there was none."""
        with locked(self._file):
            found = self._load()
            before = found.get(address, {}).get(owner, "")
            self._keep(found, address, owner, identity)
        return before

    def _keep(self, found: dict[str, dict[str, str]], address: str, owner: str, identity: str) -> None:
        found.setdefault(address, {})[owner] = identity
        write_atomic(self._file, f"{json.dumps(found, indent=1)}\n", mode=0o600)

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            return KNOWN.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise RoostError(
                f"{self._file} cannot be read: {in_words(error)}.", fix=f"Correct {self._file}."
            ) from error


def made_here() -> str:
    """Return a new identity for an address without a hub."""
    return f"{LOCAL}{secrets.token_hex(LOCAL_BYTES)}"


def is_local(identity: str) -> bool:
    """Say whether an identity is one that was made here."""
    return identity.startswith(LOCAL)


def folder_name(owner: str, hub: str) -> str:
    """Return the name of the folder that keeps what belongs to a key of a hub."""
    return f"{quote(owner, safe='')}@{hub[:SHORT_DIGITS]}" if hub else quote(owner, safe="")


def moved(folder: Path, owner: str, before: str, hub: str) -> Path:
    """Return the folder, in `folder`, of a key at a hub; what was kept under the hub's earlier identity becomes it."""
    old, new = folder / folder_name(owner, before), folder / folder_name(owner, hub)
    if old != new and old.is_dir() and not new.exists():
        old.rename(new)
    return new
