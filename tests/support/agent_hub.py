"""A hub with its agent's routes on a real socket, in the test's own event loop; its API knows three keys."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvicorn
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from roost.agent.channel.desk import Desk
from roost.agent.channel.wire import Announced, Folder
from roost.agent.hub import AgentHub, agents_of
from roost.agent.identity import HubIdentity
from roost.agent.measures import Measures
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec
from roost.agent.tools.searxng import NOWHERE, Where
from roost.cli.serve_websocket import websocket_protocol
from tests.support.net import eventually

ROLES = {"anna": "user", "bert": "user", "rita": "read-only"}
NOTHING: dict[str, JsonValue] = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, permission: Permission = Permission.READ, timeout_s: float = 5.0) -> ToolSpec:
    """Return a spec without arguments."""
    return ToolSpec(name=name, description=name, parameters=NOTHING, permission=permission, timeout_s=timeout_s)


def call(name: str = "look", number: str = "c1", workspace: str | None = None) -> ToolCall:
    """Return a call."""
    return ToolCall(id=number, name=name, arguments={}, session="s", workspace=workspace)


def announced(name: str = "w1", host: str = "desk", folders: Sequence[str] = ("project",)) -> Announced:
    """Return what a worker with one tool says of itself."""
    named = tuple(Folder(name=one, path=f"/home/{one}") for one in folders)
    return Announced(id=name, host=host, version="1", workspaces=named, tools=(tool("look"), tool("wait")))


class Hands:
    """A runner that notes what it is asked; `wait` runs until it is cancelled."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    def tools(self) -> Sequence[ToolSpec]:
        return (tool("look"), tool("wait"))

    async def run(self, call: ToolCall) -> ToolResult:
        self.asked.append(call.id)
        if call.name == "wait":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(call.id)
        return ToolResult(id=call.id, outcome=Outcome.OK, text=f"seen in {call.workspace}")


async def api(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer who a key is: the key is its name."""
    given = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
    about = {"name": given, "role": ROLES.get(given), "cost_mode": ""}
    answer: Response = JSONResponse(about) if given in ROLES else JSONResponse({"error": {"message": "no key"}}, 401)
    await answer(scope, receive, send)


@dataclass
class Served:
    """A hub that answers at `url`."""

    url: str
    desk: Desk
    hub: AgentHub


@asynccontextmanager
async def served(
    folder: Path, desk: Desk | None = None, port: int = 0, ping_s: float = 20.0, search: Where = NOWHERE
) -> AsyncIterator[Served]:
    """Run a hub; who answers no ping for `ping_s` seconds is let go. `search` says where SearXNG is."""
    desk = desk or Desk(poll_s=5, gone_s=5, answer_s=5)
    async with aiohttp.ClientSession() as http:
        agents = agents_of(folder, http, "http://127.0.0.1:1", runner_of=desk.runner)
        hub = AgentHub(api, agents, Measures(), desk, identity=HubIdentity(folder), search=search)
        config = uvicorn.Config(
            hub, lifespan="off", log_config=None, ws=websocket_protocol(), ws_ping_interval=ping_s,
            ws_ping_timeout=ping_s,
        )  # fmt: skip
        server = uvicorn.Server(config)
        sock = socket.create_server(("127.0.0.1", port))
        task = asyncio.create_task(server.serve(sockets=[sock]))
        await eventually(lambda: server.started, 20, "the hub")
        try:
            yield Served(f"http://127.0.0.1:{sock.getsockname()[1]}", desk, hub)
        finally:
            desk.let_go()
            agents.let_go()
            server.should_exit = True
            await agents.close()
            await task


def client_of(key: str) -> aiohttp.ClientSession:
    """Return a client that has a key."""
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"} if key else {})
