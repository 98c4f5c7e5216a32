"""The agent's part of a hub, where there is a folder for its sessions: imported when it is first asked for."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from roost.agent.tools.searxng import NOWHERE, Where
from roost.cli.serve_listen import Listener, Listens, make_server, open_socket
from roost.gateway.errors import ApiError
from roost.gateway.telemetry import Redactor
from roost.ops.metric_names import AGENT_PAGE

if TYPE_CHECKING:
    from roost.agent.hub import AgentHub

log = structlog.get_logger(__name__)
MINE = tuple(f"/roost/v1/{name}" for name in ("sessions", "memory", "skills", "workers", "hub", "allowed", "search"))


class AgentDoor:
    """ASGI application: the agent's routes before `api`, assembled when they are asked for.

    Until then they cost nothing, and a full or damaged disk keeps the service from nothing else: the agent's routes
    say so and are tried again with the next request.
    """

    def __init__(
        self,
        api: ASGIApp,
        folder: Path,
        http: aiohttp.ClientSession,
        base_url: str,
        redactor: Redactor | None,
        search: Where = NOWHERE,
    ) -> None:
        self._api = api
        self._folder = folder
        self._http = http
        self._base_url = base_url
        self._redactor = redactor
        self._search = search
        self._hub: AgentHub | None = None
        self._until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        ours = is_agents(scope["path"])
        if scope["type"] == "websocket" and not is_agents(scope["path"]):
            await ApiError(404, f"There is no WebSocket at {scope['path']}.").response()(scope, receive, send)
            return
        # who looks at the agent's metrics before there is one has the API's own page of them, which is empty
        if self._hub is None and (not ours or scope["path"] == AGENT_PAGE):
            await self._api(scope, receive, send)
            return
        try:
            hub = self._hub = self._hub or self._assembled()
        except (OSError, sqlite3.Error) as error:
            log.error("agent_not_available", reason=str(error))  # noqa: TRY400 - the disk's fault, not ours
            refused = ApiError(507, f"The agent's folder cannot be used: {error}.", kind="server_error", code="storage")
            await refused.response()(scope, receive, send)
            return
        await hub(scope, receive, send)

    def let_go(self, drain_s: float) -> None:
        """End what only waits: the service stops. Turns under way may go on for `drain_s` seconds from now."""
        self._until = self._until or time.monotonic() + drain_s
        if self._hub:
            self._hub.agents.let_go()
            self._hub.desk.let_go()

    async def close(self) -> None:
        """End all turns, at once those that had their time."""
        if self._hub:
            await self._hub.agents.close(max(0.0, self._until - time.monotonic()))

    def _assembled(self) -> AgentHub:
        # imported here: a gateway alone has no room for it
        from roost.agent.channel.desk import Desk
        from roost.agent.hub import AgentHub, agents_of
        from roost.agent.identity import HubIdentity
        from roost.agent.measures import Measures

        measures, desk = Measures(), Desk()
        agents = agents_of(
            self._folder, self._http, self._base_url, redactor=self._redactor, runner_of=desk.runner,
            count=measures.count,
        )  # fmt: skip
        agents.sweeper.all_marked()
        agents.settle()
        if self._until:  # first asked for while the service stops
            agents.let_go()
            desk.let_go()
        identity = HubIdentity(self._folder)
        return AgentHub(self._api, agents, measures, desk, identity=identity, search=self._search)


def agent_hub(
    api: ASGIApp,
    folder: Path | None,
    http: aiohttp.ClientSession,
    base_url: str,
    redactor: Redactor | None,
    search: Where = NOWHERE,
) -> AgentDoor | None:
    """Return the agent's routes before `api`, whose models are asked for at `base_url`; None without a folder.

    `search` says where SearXNG is.
    """
    return AgentDoor(api, folder, http, base_url, redactor, search) if folder else None


def is_agents(path: str) -> bool:
    """Say whether a path is one of the agent's, or tells of them."""
    return path in ("/openapi.json", AGENT_PAGE, *MINE) or path.startswith(tuple(f"{mine}/" for mine in MINE))


class Turns:
    """Where the agent's turns ask for models: a port of this process on loopback, open until the last turn has ended.

    The service's own ports close as soon as it is to stop, and a turn may go on for a while then.
    """

    def __init__(self) -> None:
        self._listener = Listener("127.0.0.1", 0, tls=False)
        self._socket = open_socket(self._listener)

    @property
    def url(self) -> str:
        """Return its base URL."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    @asynccontextmanager
    async def served(self, api: ASGIApp, settings: Listens) -> AsyncIterator[None]:
        """Serve `api` there until the context ends."""
        server = make_server(api, self._listener, settings)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving
