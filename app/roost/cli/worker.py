"""`roost worker`: runs the agent's tools on this machine, in the user's workspaces."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import typer

import roost.cli.worker_unit as unit
from roost import __version__
from roost.agent.channel.client import Tell, WorkerClient
from roost.agent.channel.wire import Announced, Folder
from roost.agent.mcp.servers import McpServer
from roost.agent.sandbox.parent import Bubblewrap
from roost.agent.tool import ToolCall, ToolResult, ToolRunner
from roost.agent.tools.base import AnyTool
from roost.agent.tools.runner import LocalRunner, standard_tools
from roost.agent.tools.web_search import FleetSearch, SearchServices
from roost.agent.tools.workspaces import Named
from roost.cli.access import Access, find_access, on_loopback, trusting
from roost.cli.principal import Principal, identify, refuse_root, state_folder
from roost.cli.show import json_line, plain
from roost.cli.worker_lock import only_one
from roost.gateway.telemetry import configure
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

SHOWN_CHARACTERS = 160
FOREIGN = "mcp__"
"""What names of tools of MCP servers begin with; which there are is known when the servers run."""
ROOT = "A worker does not run as root: its limits do not hold root, and its files would be all files."
NO_FOLDERS = "There is no workspace yet: `roost workspace add PATH` names a folder, also while this runs."


app = typer.Typer(invoke_without_command=True)


@app.callback()
def worker(
    context: typer.Context,
    *,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Private addresses that pages may be fetched from, such as 192.0.2.0/24."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL", help="Offer only this tool, such as read; may be given several times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what happens as lines of JSON.")] = False,
) -> None:
    """Run the agent's tools on this machine, in the folders that `roost workspace add` named, until Ctrl-C.

    It connects to the API by itself and works for conversations of its own key only. Programs run in a sandbox.

    `roost worker install` has systemd run it for you; `status` and `uninstall` belong to that.

    Example: roost worker
    """
    if context.invoked_subcommand:
        return
    refuse_root(ROOT)
    refuse_plain(find_access())
    networks = checked_networks(allow_network or [])
    box = Bubblewrap()
    if gone := box.missing():
        sys.stderr.write(f"Without a sandbox no program is run, only files and pages: {gone}.\n")
    whose = identify()
    owner, access, named = whose.owner, whose.access, whose.workspaces
    services = search_services(access)
    configure("warning", [access.key, *filter(None, [services.brave_key])])
    folder = state_folder() / whose.called
    tools = chosen(standard_tools(box, services, networks), only or [])  # refused before the lock, whose holder works
    with only_one(folder):
        foreign = Foreign(whose.servers.of(owner), whose, only or [])
        runner = LocalRunner(owner, named, folder, tools, foreign.tools)
        offers = offer(owner, named, runner, identity(folder))
        if not offers().workspaces:
            sys.stderr.write(f"{NO_FOLDERS}\n")
        asyncio.run(_work(access, foreign, runner, offers, Shown(offers, as_json=as_json)))


def search_services(access: Access) -> SearchServices:
    """Return where is searched: as the environment says, and by the fleet whose API this is."""
    fleet = FleetSearch(access.base_url, access.key, trusting(access.ca), proxied=not on_loopback(access.base_url))
    return SearchServices(os.environ.get("ROOST_SEARXNG_URL", ""), os.environ.get("ROOST_BRAVE_KEY", ""), fleet)


class Foreign:
    """The tools of the MCP servers that were named for a key; without servers nothing of the protocol is loaded."""

    def __init__(self, servers: Sequence[McpServer], whose: Principal, only: Sequence[str]) -> None:
        self._servers = servers
        if servers:
            from roost.agent.mcp.tools import McpTools  # it needs memory that a worker without servers does not

            self._mcp = McpTools(servers, mcp_folder(whose), whose.workspaces, only)

    def tools(self) -> Sequence[AnyTool]:
        """Return what can be called now."""
        return self._mcp.tools() if self._servers else ()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the servers running until the context ends."""
        async with contextlib.AsyncExitStack() as stack:
            if self._servers:
                await stack.enter_async_context(self._mcp.running())
            yield


def mcp_folder(whose: Principal) -> Path:
    """Return where sandboxed servers of a key have a folder each."""
    return state_folder() / whose.called / "mcp"


async def _work(
    access: Access, foreign: Foreign, runner: ToolRunner, offers: Callable[[], Announced], tell: Tell
) -> None:
    async with foreign.running():
        await _serve(access, runner, offers, tell)


async def _serve(access: Access, runner: ToolRunner, offers: Callable[[], Announced], tell: Tell) -> None:
    connector = aiohttp.TCPConnector(ssl=trusting(access.ca))
    trust = not on_loopback(access.base_url)  # no proxy between this machine and itself
    async with aiohttp.ClientSession(connector=connector, trust_env=trust) as http:
        client = WorkerClient(http, access.base_url, access.key, runner, offers, tell)
        work = asyncio.create_task(client.work())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            sys.stderr.write("Stopped.\n")


class Shown(Tell):
    """Shows what happens: lines for people, or JSON."""

    def __init__(self, offers: Callable[[], Announced], *, as_json: bool) -> None:
        self._offers = offers
        self._as_json = as_json

    def connected(self, owner: str) -> None:
        """Say for whom it works, and where."""
        names = [folder.name for folder in self._offers().workspaces]
        self._say({"event": "connected", "owner": owner, "workspaces": names},
                  f"Connected; works for {owner} in {', '.join(names) or 'no folder yet'}.")  # fmt: skip

    def lost(self, reason: str) -> None:
        """Say that the hub does not answer."""
        self._say({"event": "lost", "reason": reason}, f"The API does not answer ({reason}); it is tried again.")

    def begins(self, call: ToolCall) -> None:
        """Say which call."""
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        self._say({"event": "call", "id": call.id, "tool": call.name}, f"→ {call.name} {_short(arguments)}")

    def ended(self, call: ToolCall, result: ToolResult) -> None:
        """Say what came of it."""
        document = {"event": "result", "id": call.id, "outcome": result.outcome.value, "changed": list(result.changed)}
        self._say(document, f"← {result.outcome.value} {_short(result.text)}")

    def _say(self, document: Mapping[str, object], line: str) -> None:
        print(json_line(document) if self._as_json else plain(line), flush=True)


def chosen(tools: list[AnyTool], only: list[str]) -> list[AnyTool]:
    """Return the tools that are offered: all, or those named.

    Raises:
        RoostError: there is none of a name.
    """
    known = {tool.spec.name: tool for tool in tools}
    for name in only:
        if name not in known and not name.startswith(FOREIGN):
            raise RoostError(f"There is no tool {name!r}.", fix=f"Choose of {', '.join(known)}.", exit_code=2)
    return [tool for name, tool in known.items() if not only or name in only]


def offer(owner: str, named: Named, runner: ToolRunner, identity: str) -> Callable[[], Announced]:
    """Return what says what a worker offers now: the folders of its key that are there, and its tools."""
    host = host_name()

    def offers() -> Announced:
        folders = tuple(Folder(name=w.name, path=str(w.path)) for w in named.of(owner) if w.path.is_dir())
        return Announced(id=identity, host=host, version=__version__, workspaces=folders, tools=tuple(runner.tools()))

    return offers


def host_name() -> str:
    """Return what a worker here calls its machine."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")[:100] or "host"


def identity(folder: Path) -> str:
    """Return the id by which the hub knows this worker again after a restart; made when there is none."""
    file = folder / "id"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        made = uuid.uuid4().hex
        write_atomic(file, f"{made}\n", mode=0o600)
        return made


def refuse_plain(access: Access) -> None:
    """Stop where key and files would go over a network unencrypted.

    Raises:
        RoostError: the API is elsewhere and not asked by https.
    """
    if urlsplit(access.base_url).scheme != "https" and not on_loopback(access.base_url):
        raise RoostError(
            f"{access.base_url} is on another machine and not encrypted.", fix="Give ROOST_API an https address.",
            exit_code=2,
        )  # fmt: skip


def checked_networks(networks: list[str]) -> list[str]:
    """Return networks that pages may be fetched from.

    Raises:
        RoostError: one is none.
    """
    try:
        return [str(ipaddress.ip_network(network)) for network in networks]
    except ValueError as error:
        raise RoostError(f"--allow-network: {error}.", fix="Write 192.0.2.0/24, say.", exit_code=2) from None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"


app.command("install")(unit.install)
app.command("uninstall")(unit.uninstall)
app.command("status")(unit.status)
