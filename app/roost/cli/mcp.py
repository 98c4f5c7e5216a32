"""`roost mcp`: servers whose tools the agent may use, and Roost's own tools for other programs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from roost.agent.audit.log import AuditLog
from roost.agent.mcp.servers import McpServer, imported, made, name_of
from roost.agent.mcp.servers import McpServers as Servers
from roost.agent.sandbox.parent import Bubblewrap
from roost.agent.tools.runner import LocalRunner, standard_tools
from roost.cli.access import on_loopback, trusting
from roost.cli.principal import Principal, identify, mcp_file, refuse_root, state_folder
from roost.cli.show import plain, print_json, print_table
from roost.cli.worker import checked_networks, chosen, search_services
from roost.cli.worker_lock import only_one
from roost.gateway.telemetry import Redactor, configure
from roost.ops.errors import NOT_FOUND, RoostError

app = typer.Typer(no_args_is_help=True)
ROOT = "Root has no MCP servers: they would have root's rights."
NOT_THERE = 1
MOST_SERVED = 16
AGAIN = "A worker that runs takes it up when it is started anew."

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="See `roost mcp list`.")]


@app.command("add")
def add(
    name: Annotated[
        str, typer.Argument(help="What it is called, a-z, 0-9 and -; with --import of the one to take.")
    ] = "",
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND ARGUMENTS…", help="The program that is the server.")
    ] = None,
    *,
    url: Annotated[str, typer.Option(help="The server is at this address (streamable HTTP), and no program.")] = "",
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="Sent to it, such as X-Team: docs; no secret, as others see commands."),
    ] = None,
    header_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VARIABLE", help="Sent to it with what a variable of yours holds now: for secrets."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]", help="A variable for the program, without VALUE as it is now: it gets no others."
        ),
    ] = None,
    network: Annotated[bool, typer.Option("--network", help="The program may use the network.")] = False,
    read: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="What else of the machine the program may read.")
    ] = None,
    workspace: Annotated[str, typer.Option(help="The workspace that the program may read, at /workspace.")] = "",
    writable: Annotated[
        bool, typer.Option("--writable", help="It may change that workspace; not undone by /undo.")
    ] = False,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="It runs as you, outside the sandbox: what you can do, it can.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="How long a call may take, in seconds.", min=1, max=600)] = 60.0,
    import_file: Annotated[
        Path | None,
        typer.Option("--import", help='A file {"mcpServers": …} as other clients have it: all of them, or NAME.'),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let the agent use the tools of an MCP server, which `roost worker` starts: a program, or an address.

    A program runs in the sandbox: it sees /usr, what --read names and one folder; it has no network without --network,
    and no variable of yours but those of --env.

    Example: roost mcp add time --read ~/mcp -- ~/mcp/bin/mcp-server-time --local-timezone Europe/Vienna
    """
    refuse_root(ROOT)
    whose = identify()
    if workspace and workspace not in [one.name for one in whose.workspaces.of(whose.owner)]:
        raise RoostError(f"There is no workspace {workspace}.", fix="roost workspace list", exit_code=NOT_FOUND)
    common: dict[str, object] = {
        "owner": whose.owner, "hub": whose.hub, "timeout_s": timeout, "sandbox": not no_sandbox, "network": network,
        "read": _readable(read or []), "workspace": workspace, "writable": writable,
    }  # fmt: skip
    renamed: list[str] = []
    if import_file:
        found = _imported(import_file, name, common)
        servers = [server for _, server in found]
        renamed = [f"{before!r} is kept as {server.name}." for before, server in found if before != server.name]
    else:
        headers = _pairs(header, ":", "--header") | _from_variables(header_env)
        more = {"command": command or [], "environment": _variables(env), "url": url, "headers": headers}
        servers = [made({**common, **more, "name": name})]
    whose.servers.add(servers)
    if as_json:
        print_json([server.shown() for server in servers])
    else:
        for line in renamed:
            print(plain(line))
        names = ", ".join(server.name for server in servers)
        print(f"{names}: for conversations of {whose.owner}. `roost mcp test {servers[0].name}` tries it. {AGAIN}")


@app.command("list")
def show_all(*, as_json: JsonOption = False) -> None:
    """List the servers.

    Example: roost mcp list
    """
    found = Servers(mcp_file()).all()
    if as_json:
        print_json([server.shown() for server in found])
        return
    rows = [(s.name, plain(s.url or " ".join(s.command)), s.owner, _bounds(s)) for s in found]
    print_table(["server", "program or address", "key", "may"], rows)


@app.command("remove")
def remove(name: NameArgument, *, as_json: JsonOption = False) -> None:
    """Let the agent use a server no longer.

    Example: roost mcp remove time
    """
    refuse_root(ROOT)
    whose = identify()
    gone = whose.servers.remove(whose.owner, name)
    if as_json:
        print_json(gone.shown())
    else:
        print(f"{gone.name} is not used any more. {AGAIN}")


@app.command("test")
def try_it(name: NameArgument, *, as_json: JsonOption = False) -> None:
    """Start a server as the worker does, list its tools, and end it. Exit code 1: it does not work.

    Example: roost mcp test time
    """
    refuse_root(ROOT)
    whose = identify()
    server = next((one for one in whose.servers.of(whose.owner) if one.name == name), None)
    if server is None:
        raise RoostError(f"There is no MCP server {name}.", fix="roost mcp list", exit_code=NOT_FOUND)
    tools, problem, about = asyncio.run(_tried(server, whose))
    document = {"name": name, "ok": not problem, "problem": problem, "server": about, "tools": tools}
    if as_json:
        print_json(document)
    elif problem:
        raise RoostError(f"{name} does not work: {problem}.", fix=_advice(server), exit_code=NOT_THERE)
    else:
        print(plain(f"{name} works ({about or 'it does not say what it is'})."))
        print_table(["tool", "what it says of itself"], [(tool["name"], plain(tool["description"])) for tool in tools])
    if problem:
        raise typer.Exit(NOT_THERE)


@app.command("serve")
def serve(
    *,
    workspace: Annotated[
        str, typer.Option(help="Work in this workspace; else each call names one, if there are several.")
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Give only tools that change nothing.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Give only this tool; may be given several times.")
    ] = None,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Private addresses that pages may be fetched from, such as 192.0.2.0/24."),
    ] = None,
) -> None:
    """Give Roost's own tools to an MCP client, which starts this and speaks over its input and output.

    They act in your workspaces under the rules that they have for the agent, and are put on record in
    ~/.local/state/roost/worker/KEY@HUB/serve-N/audit.

    Example: roost mcp serve --workspace site --read-only
    """
    refuse_root(ROOT)
    whose = identify()
    if workspace and workspace not in [one.name for one in whose.workspaces.of(whose.owner)]:
        raise RoostError(f"There is no workspace {workspace}.", fix="roost workspace list", exit_code=NOT_FOUND)
    networks = checked_networks(allow_network or [])
    with _slot(state_folder() / whose.called) as folder:
        asyncio.run(_serve(whose, folder, workspace, networks, only or [], read_only=read_only))


@contextmanager
def _slot(folder: Path) -> Iterator[Path]:
    """Return a folder that no other server of this user and key uses: several clients may each have one.

    Raises:
        RoostError: too many run.
    """
    for number in range(1, MOST_SERVED + 1):
        place = folder / f"serve-{number}"
        with ExitStack() as stack:
            try:
                stack.enter_context(only_one(place))
            except RoostError:
                continue
            yield place
            return
    raise RoostError(f"{MOST_SERVED} servers of this key run already.", fix="End one of the clients.")


async def _serve(
    whose: Principal, folder: Path, workspace: str, networks: Sequence[str], only: list[str], *, read_only: bool
) -> None:
    from roost.agent.mcp.own import Hub, own_tools
    from roost.agent.mcp.serve import HARMLESS, Served, serve_stdio

    access = whose.access
    services = search_services(access)
    configure("warning", [access.key, *filter(None, [services.brave_key])])
    connector = aiohttp.TCPConnector(ssl=trusting(access.ca))
    async with aiohttp.ClientSession(connector=connector, trust_env=not on_loopback(access.base_url)) as http:
        all_tools = [
            *standard_tools(Bubblewrap(), services, networks),
            *own_tools(Hub(http, access.base_url, access.key)),
        ]
        tools = [tool for tool in chosen(all_tools, only) if not read_only or tool.spec.permission in HARMLESS]
        runner = LocalRunner(whose.owner, whose.workspaces, folder, tools)
        placeless = frozenset(tool.spec.name for tool in tools if not tool.needs_place)
        audit = AuditLog(folder / "audit", Redactor([access.key]))
        await serve_stdio(Served(whose.owner, runner, whose.workspaces, placeless, audit, workspace))


async def _tried(server: McpServer, whose: Principal) -> tuple[list[dict[str, str]], str, str]:
    """Return the tools of a server, what is wrong with it ('' if nothing), and what it says that it is."""
    from roost.agent.mcp.connection import Connection
    from roost.agent.mcp.tools import opener, spec_of
    from roost.agent.tools.errors import ToolError

    configure("error", [whose.access.key])
    folder = state_folder() / whose.called / "mcp"
    connection = Connection(server.name, opener(server, folder, whose.workspaces))
    try:
        await connection.once()
    except ToolError as error:
        return [], str(error), ""
    tools: dict[str, dict[str, str]] = {}
    for listed in connection.tools:
        if spec := spec_of(server, listed, tools):
            tools[spec.name] = {"name": spec.name, "description": spec.description}
    return list(tools.values()), "", connection.server


def _readable(paths: Sequence[Path]) -> list[str]:
    """Return the whole paths of what a program may read.

    Raises:
        RoostError: one is not there.
    """
    found = [path.expanduser().resolve() for path in paths]
    if missing := [path for path in found if not os.path.lexists(path)]:
        raise RoostError(
            f"--read {missing[0]}: there is no such file or folder.", fix="--read PATH, one that is there", exit_code=2
        )
    return [str(path) for path in found]


def _imported(file: Path, name: str, common: dict[str, object]) -> Sequence[tuple[str, McpServer]]:
    """Return the servers of a file, or the one that is meant, each after its name there.

    Raises:
        RoostError: the file cannot be read, holds no such thing, or not the one that is meant.
    """
    try:
        text = file.expanduser().read_text()
    except FileNotFoundError:
        raise RoostError(f"There is no file {file}.", fix="--import PATH, one that is there", exit_code=2) from None
    except UnicodeDecodeError:
        raise RoostError(f"{file} is no text.", fix="--import PATH", exit_code=2) from None
    except OSError as error:
        raise RoostError(f"{file} cannot be read: {error.strerror}.", fix="--import PATH", exit_code=2) from None
    try:
        found = imported(text, common)
    except RoostError as error:
        raise RoostError(f"{file}: {error.message}", fix=error.fix, exit_code=error.exit_code) from None
    if not found:
        raise RoostError(f"{file} holds no MCP servers.", fix="--import PATH", exit_code=2)
    meant = [one for one in found if name in ("", one[1].name) or name_of(name) == one[1].name]
    if not meant:
        names = ", ".join(server.name for _, server in found)
        raise RoostError(f"There is no server {name!r} in {file}, but {names}.", fix=f"--import {file}", exit_code=2)
    return meant


def _pairs(given: list[str] | None, sign: str, option: str) -> dict[str, str]:
    """Return NAME=VALUE options as a dictionary.

    Raises:
        RoostError: one is none; the value is not shown, it may be secret.
    """
    found = {}
    for number, text in enumerate(given or [], 1):
        name, there, value = text.partition(sign)
        if not there or not name.strip():
            raise RoostError(
                f"{option} number {number} is no NAME{sign}VALUE.", fix=f"{option} NAME{sign}VALUE", exit_code=2
            )
        found[name.strip()] = value.strip() if sign == ":" else value
    return found


def _variables(given: list[str] | None) -> dict[str, str]:
    """Return the variables for a program; one without a value has that of this process.

    Raises:
        RoostError: it is not set.
    """
    named = [text for text in given or [] if "=" not in text]
    if missing := [name for name in named if name not in os.environ]:
        raise RoostError(f"{missing[0]} is not set here.", fix=f"--env {missing[0]}=VALUE", exit_code=2)
    return {name: os.environ[name] for name in named} | _pairs([t for t in given or [] if "=" in t], "=", "--env")


def _from_variables(given: list[str] | None) -> dict[str, str]:
    """Return headers whose values are in variables of this process.

    Raises:
        RoostError: one of these is not set.
    """
    meant = _pairs(given, "=", "--header-env")
    if missing := [variable for variable in meant.values() if variable not in os.environ]:
        raise RoostError(f"{missing[0]} is not set here.", fix=f"export {missing[0]}", exit_code=2)
    return {name: os.environ[variable] for name, variable in meant.items()}


def _bounds(server: McpServer) -> str:
    """Return what a server may, in a few words."""
    if server.url:
        return "is elsewhere"
    if not server.sandbox:
        return "all that you may"
    parts = [f"{'change' if server.writable else 'read'} {server.workspace}"] if server.workspace else []
    parts += [f"read {path}" for path in server.read]
    return ", ".join([*parts, "the network" if server.network else "no network"])


def _advice(server: McpServer) -> str:
    if server.url:
        return "Check the address and the headers."
    if server.sandbox:
        return "In the sandbox it sees only /usr and what --read names, and no network without --network."
    return "Start the program by hand: what it says is the reason."
