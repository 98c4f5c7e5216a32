"""Where a trained router is kept, with the one before it: a Nomad variable that the agent's task may read, or a file.

As a variable it outlives every process and node, and reaches all replicas of the gateway within seconds. A variable may
have 64 KiB (Nomad refuses more by "variables are limited to 64KiB in total size"): room for two routers.
https://developer.hashicorp.com/nomad/docs/concepts/variables, "Task access to variables" for its path.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roost.fleet.agent_jobs import ROUTE_ITEM, ROUTE_VARIABLE
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

PREVIOUS_ITEM = "previous"
CONFLICT, NOT_FOUND = 409, 404
ABSENT = "0"
CHANGED = "The router was changed by somebody else."


@dataclass(frozen=True)
class Routers:
    """The text of the router that is used and of the one before it; an empty one is that which comes with Roost."""

    present: str = ""
    previous: str = ""


class RouteStore(Protocol):
    """Where they lie."""

    def load(self) -> tuple[Routers, str]:
        """Return them, and their version."""
        ...

    def save(self, routers: Routers, version: str, /) -> None:
        """Replace them, if they still have that version.

        Raises:
            RoostError: they have not, or there is no room for them.
        """
        ...


class NomadRouteStore:
    """Two items of a Nomad variable; the agent's template reads the present one only."""

    def __init__(self, client: NomadClient) -> None:
        self._client = client

    def load(self) -> tuple[Routers, str]:
        """Read the variable."""
        try:
            found = self._client.get(f"var/{ROUTE_VARIABLE}") or {}
        except NomadRefusedError as error:
            if error.status != NOT_FOUND:
                raise
            return Routers(), ABSENT
        items = found.get("Items") or {}
        return Routers(str(items.get(ROUTE_ITEM, "")), str(items.get(PREVIOUS_ITEM, ""))), str(found["ModifyIndex"])

    def save(self, routers: Routers, version: str) -> None:
        """Write the variable with check-and-set."""
        items = {ROUTE_ITEM: routers.present, PREVIOUS_ITEM: routers.previous}
        body = {"Namespace": "default", "Path": ROUTE_VARIABLE, "Items": items}
        try:
            self._client.put(f"var/{ROUTE_VARIABLE}", body, cas=version)
        except NomadRefusedError as error:
            if error.status == CONFLICT:
                raise RoostError(CHANGED, fix="Look at it with `roost route show`, and run it again.") from None
            if "limited to" in error.text:
                raise RoostError(f"Nomad does not take the router: {error.text.strip()}", fix="Train anew.") from None
            raise


class FileRouteStore:
    """A file for a gateway without Nomad (`ROOST_ROUTE_FILE`), and beside it `NAME.previous`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._previous = path.with_name(path.name + ".previous")

    def load(self) -> tuple[Routers, str]:
        """Read both files."""
        found = Routers(_text(self._path), _text(self._previous))
        return found, found.present

    def save(self, routers: Routers, version: str) -> None:
        """Write the one before first: what happens in between loses nothing."""
        try:
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _text(self._path) != version:
                    raise RoostError(CHANGED, fix="Look at it with `roost route show`, and run it again.")
                write_atomic(self._previous, routers.previous)
                write_atomic(self._path, routers.present)
        except OSError as error:
            raise RoostError(
                f"{self._path} cannot be written: {error.strerror}.", fix="Run it as the owner of that folder."
            ) from None


def replace_router(store: RouteStore, text: str) -> None:
    """Use another router from now on, and keep the one before; an empty text is the one that comes with Roost."""
    routers, version = store.load()
    if routers.present != text:
        store.save(Routers(text, routers.present), version)


def undo(store: RouteStore) -> Routers:
    """Go back to the router before; done twice it is as it was. Return them as they are now."""
    routers, version = store.load()
    if routers.present == routers.previous:
        raise RoostError("There is no router before the present one.", fix="Train one with `roost route train`.")
    swapped = Routers(routers.previous, routers.present)
    store.save(swapped, version)
    return swapped


def ensure_variable_exists(client: NomadClient, *, dry_run: bool = False) -> bool:
    """Make the variable unless it is there, so that the agent's template finds one; say whether it was missing."""
    store = NomadRouteStore(client)
    if store.load()[1] != ABSENT:
        return False
    if not dry_run:
        store.save(Routers(), ABSENT)
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise RoostError(f"{path} cannot be read: {error}.", fix="Run it as its owner.") from None
