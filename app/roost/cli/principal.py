"""For whom tools work here: a key, and the hub whose key it is. What a user named for them is found by both."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roost.agent.channel.wire import HUB_ID_DIGITS, HUB_PATH
from roost.agent.mcp.servers import McpServers
from roost.agent.tools.hubs import KnownHubs, folder_name, is_local, made_here, moved
from roost.agent.tools.workspaces import Workspaces
from roost.cli.access import Access, find_access
from roost.cli.api import Api
from roost.ops.errors import NOT_ALLOWED, RoostError

WHO_PATH = "/v1/key"
ROOT_FIX = (
    "Run it as the user whose files these are: `sudo -u NAME env ROOST_API_KEY=KEY roost …`, with a key of "
    "`sudo roost keys add NAME`."
)
PRIVATE = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
Json = Any


@dataclass(frozen=True)
class Principal:
    """A key (`owner`) of a hub (its identity for that key, see `KnownHubs`), and the API that said so."""

    access: Access
    owner: str
    hub: str
    key: Mapping[str, Json] = field(default_factory=dict)

    @property
    def workspaces(self) -> Workspaces:
        """Return the folders that were named for it."""
        return workspaces().at(self.hub)

    @property
    def servers(self) -> McpServers:
        """Return the MCP servers that were named for it."""
        return McpServers(mcp_file(), self.hub)

    @property
    def called(self) -> str:
        """Return the name of folders that keep what belongs to it."""
        return folder_name(self.owner, self.hub)


def identify() -> Principal:
    """Return for whom the key in use works; what waited for a first hub becomes that of this one.

    Raises:
        RoostError: the API does not answer or refuses the key, or it is another hub than was there before, or none.
    """
    access, key, hub = _asked()
    owner = str(key["name"])
    if not hub:  # what waits for a first hub goes on waiting
        return Principal(access, owner, known_hubs().local(access.base_url, owner), key)
    before = known_hubs().pin(access.base_url, owner, hub)
    found = Principal(access, owner, hub, key)
    got = _pass_on(found, "") + (_pass_on(found, before) if before else [])
    if got:
        sys.stderr.write(f"From now on {', '.join(got)} is for the key {owner} of the hub at {access.base_url} only.\n")
    return found


def trust() -> tuple[Principal, list[str]]:
    """Take the hub that answers now in the place of the one before; return it, and the folders that it got.

    Raises:
        RoostError: the API does not answer, or refuses the key.
    """
    access, key, hub = _asked()
    owner = str(key["name"])
    if not hub:
        before = known_hubs().seen(access.base_url, owner)
        hub = before if is_local(before) else made_here()
    before = known_hubs().trust(access.base_url, owner, hub)
    found = Principal(access, owner, hub, key)
    return found, [] if before in ("", hub) else _pass_on(found, before)


def _pass_on(whose: Principal, before: str) -> list[str]:
    """Give a hub what a key had at `before`; return the names of its folders."""
    for folder in (state_folder(), technician_folder()):
        moved(folder, whose.owner, before, whose.hub)
    whose.servers.pass_on(whose.owner, before)
    return [one.name for one in whose.workspaces.pass_on(whose.owner, before)]


def _asked() -> tuple[Access, Mapping[str, Json], str]:
    access = find_access()
    with Api(access) as api:
        return access, api.get(WHO_PATH), _identity(api.find(HUB_PATH))


def _identity(said: Mapping[str, Json] | None) -> str:
    """Return a hub's identity; '' where there is no hub, only a gateway, or one that does not know the question."""
    if said is None:
        return ""
    found = str(said.get("id") or "")
    if len(found) != HUB_ID_DIGITS or not all(digit in "0123456789abcdef" for digit in found):
        raise RoostError("What answers is no hub of this version of Roost.", fix="Check ROOST_API.")
    return found


def workspaces() -> Workspaces:
    """Return this user's workspaces, as no hub sees them: `Principal.workspaces` are those of one."""
    kept = [known_hubs_file(), mcp_file(), state_folder(), technician_folder()]
    private = [Path(found) for name in PRIVATE if (found := os.environ.get(name))]
    return Workspaces(settings_folder() / "workspaces.json", kept, private)


def known_hubs() -> KnownHubs:
    """Return the hubs that this user's workers know."""
    return KnownHubs(known_hubs_file())


def known_hubs_file() -> Path:
    """Return where they are kept."""
    return settings_folder() / "hubs.json"


def mcp_file() -> Path:
    """Return where this user's MCP servers are kept."""
    return settings_folder() / "mcp.json"


def settings_folder() -> Path:
    """Return where this user's settings of Roost are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "roost"


def state_folder() -> Path:
    """Return where this user's worker keeps outcomes and what undo needs."""
    return _state() / "worker"


def technician_folder() -> Path:
    """Return where this user's technician keeps jobs."""
    return _state() / "technician"


def _state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "roost"


def refuse_root(what: str) -> None:
    """Stop where root asks.

    Raises:
        RoostError: it is root.
    """
    if os.geteuid() == 0:
        raise RoostError(what, fix=ROOT_FIX, exit_code=NOT_ALLOWED)
