"""What the MCP servers of a key offer, as tools of the worker's runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from pydantic import ConfigDict, JsonValue

from roost.agent.mcp.connection import Connection, Listed
from roost.agent.mcp.process import Ended, Program, running
from roost.agent.mcp.schema import described, spec_name
from roost.agent.mcp.servers import McpServer
from roost.agent.mcp.web import at_address
from roost.agent.tool import Permission, ToolSpec
from roost.agent.tools.base import AnyTool, Arguments, Done, Tool
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.errors import RefusedError
from roost.agent.tools.shell import protected
from roost.agent.tools.undo_store import Place
from roost.agent.tools.workspaces import Named

log = structlog.get_logger(__name__)
MOST_OFFERED = 64
"""Tools of all servers together: a worker announces a bounded number."""
CLOSE_S = 4.0
MOST_SCHEMAS_BYTES = 96 << 10


class Given(Arguments):
    """Arguments as they are: the hub checked them with the schema, and the server does it again."""

    model_config = ConfigDict(frozen=True, extra="allow")


class McpTools:
    """The servers of a key while they run. `folder` keeps what sandboxed servers write."""

    def __init__(self, servers: Sequence[McpServer], folder: Path, named: Named, only: Collection[str] = ()) -> None:
        self._only = only
        self.connections = {
            server.name: Connection(server.name, opener(server, folder, named), self._changed) for server in servers
        }
        self._servers = {server.name: server for server in servers}
        self._offered: list[AnyTool] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep all of them running until the context ends."""
        tasks = [asyncio.create_task(connection.run()) for connection in self.connections.values()]
        try:
            yield
        finally:
            waiting = set(tasks)
            while waiting:  # one that is just being torn down may miss that it is cancelled
                for task in waiting:
                    task.cancel()
                _, waiting = await asyncio.wait(waiting, timeout=CLOSE_S)

    def tools(self) -> Sequence[AnyTool]:
        """Return what can be called now."""
        return self._offered

    def _changed(self) -> None:
        """Make the list anew: of each server in the order of names, as far as there is room."""
        offered: dict[str, AnyTool] = {}
        left = MOST_SCHEMAS_BYTES
        for name, connection in self.connections.items():
            for listed in connection.tools:
                spec = spec_of(self._servers[name], listed, offered)
                if spec is None or (self._only and spec.name not in self._only):
                    continue
                left -= len(spec.model_dump_json())
                if left < 0 or len(offered) >= MOST_OFFERED:
                    log.warning("mcp_tools_left_out", server=name, tool=spec.name)
                    break
                offered[spec.name] = tool_of(spec, listed.name, connection.call)
        self._offered = list(offered.values())


Call = Callable[[str, Mapping[str, JsonValue]], Awaitable[str]]


def spec_of(server: McpServer, listed: Listed, taken: Collection[str] = ()) -> ToolSpec | None:
    """Return a server's tool as ours are; None where its arguments cannot be described to a model."""
    if listed.schema is None:
        return None
    return ToolSpec(
        name=spec_name(server.name, listed.name, taken), parameters=listed.schema, permission=Permission.FOREIGN,
        description=described(server.name, listed.name, listed.description), timeout_s=server.timeout_s,
        read_only=listed.read_only and server.keeps_to_itself, safe_to_repeat=listed.read_only and listed.idempotent,
    )  # fmt: skip


def tool_of(spec: ToolSpec, name: str, call: Call) -> Tool[Given]:
    """Return the tool that asks a server for it by the name it has there."""

    async def act(given: Given, _place: Place | None) -> Done:
        return Done(await call(name, given.model_dump(mode="json")))

    return Tool(spec, Given, act, needs_place=False)


def opener(server: McpServer, folder: Path, named: Named) -> Callable[[Ended], AbstractAsyncContextManager[Any]]:
    """Return what starts a server; each time anew, with the workspaces that there are then."""

    def open_it(ended: Ended) -> AbstractAsyncContextManager[Any]:
        if server.url:
            return at_address(server.url, server.headers, server.timeout_s)
        return running(program_of(server, folder, named), ended)

    return open_it


def program_of(server: McpServer, folder: Path, named: Named) -> Program:
    """Return what to start.

    Raises:
        RefusedError: its workspace is none any more.
        OSError: there is no folder for it.
    """
    kept: Sequence[str] = ()
    hidden: Sequence[str] = ()
    if server.workspace:
        place = next((one.path for one in named.of(server.owner) if one.name == server.workspace), None)
        if place is None or place.resolve() != place or not place.is_dir():
            raise RefusedError(f"There is no workspace {server.workspace}")
        if server.writable:
            files = Beneath(place)
            try:
                found = protected(files)
            finally:
                files.close()
            kept, hidden = found.kept, found.hidden
    else:
        place = folder / server.name
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Program(
        server.command, place, server.environment, server.sandbox, server.network, server.read,
        bool(server.workspace) and not server.writable, kept, hidden,
    )  # fmt: skip
