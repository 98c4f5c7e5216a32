"""`roost mcp serve` before the official client, and before our own worker: the same rules as for the agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from roost.agent.audit.log import AuditLog
from roost.agent.channel.desk import Desk
from roost.agent.mcp.connection import Connection
from roost.agent.mcp.servers import made
from roost.agent.mcp.tools import McpTools
from roost.agent.sandbox.parent import Bubblewrap
from roost.agent.tool import Outcome, ToolCall
from roost.agent.tools.runner import LocalRunner
from roost.agent.tools.workspaces import Workspaces
from roost.ops.errors import NOT_FOUND
from tests.support.agent_hub import Served, served
from tests.support.net import eventually
from tests.support.worker import Home

pytestmark = pytest.mark.timeout(280)
needs_sandbox = pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "hub", Desk()) as running:
        yield running


@pytest.fixture
async def home(hub: Served, tmp_path: Path) -> Home:
    """A user with two workspaces."""
    found = Home(tmp_path / "home", hub.url, "anna")
    for name in ("project", "other"):
        (found.folder / name).mkdir(parents=True)
        (found.folder / name / "a.txt").write_text(f"alpha of {name}\n")
        await asyncio.to_thread(found.run, "workspace", "add", str(found.folder / name))
    (found.folder / "secret.txt").write_text("heliotrope")
    return found


@asynccontextmanager
async def client(home: Home, *words: str, mode: Literal["legacy", "auto"] = "legacy") -> AsyncIterator[Client]:
    """Return the official client, connected."""
    command, *arguments = home.words("mcp", "serve", *words)
    program = StdioServerParameters(command=command, args=arguments, env=home.environment())
    async with Client(program, mode=mode) as connected:
        yield connected


async def said(connected: Client, tool: str, **arguments: object) -> tuple[bool, str]:
    """Call a tool, return whether it went well, and its text."""
    result = await connected.call_tool(tool, arguments)
    assert isinstance(result.content[0], types.TextContent)
    return not result.is_error, result.content[0].text


@needs_sandbox
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_has_files_and_programs_of_workspaces_only(
    hub: Served, home: Home, mode: Literal["legacy", "auto"]
) -> None:
    hub.hub.agents.knowledge.memory.remember("anna", "The desk is of walnut.", source="user")
    hub.hub.agents.knowledge.memory.remember("bert", "The desk is of oak.", source="user")
    async with client(home, mode=mode) as connected:
        tools = {tool.name: tool for tool in (await connected.list_tools()).tools}
        assert {"read", "write", "shell", "ask_model", "search_memory", "search_sessions"} <= set(tools)
        assert tools["read"].input_schema["properties"]["workspace"]["enum"] == ["other", "project"]
        assert "workspace" not in tools["ask_model"].input_schema["properties"]
        hints = tools["shell"].annotations
        assert hints
        assert (hints.read_only_hint, hints.destructive_hint) == (False, True)
        assert await said(connected, "read", path="a.txt", workspace="other") == (True, "alpha of other\n")
        assert not (await said(connected, "read", path="a.txt"))[0]  # it has to be said in which
        for path in ("../secret.txt", str(home.folder / "secret.txt"), "/etc/passwd"):
            assert not (await said(connected, "read", path=path, workspace="project"))[0]
        assert (await said(connected, "write", path="b.txt", content="beta", workspace="project"))[0]
        assert (home.folder / "project" / "b.txt").read_text() == "beta"
        fine, out = await said(
            connected, "shell", command=f"cat b.txt; cat {home.folder}/secret.txt; env", workspace="project"
        )
        assert "beta" in out
        assert "heliotrope" not in out
        assert "ROOST_API_KEY" not in out
        assert (await said(connected, "undo", workspace="project"))[0] or fine
        found = await said(connected, "search_memory", query="desk")
        assert "walnut" in found[1]
        assert "oak" not in found[1]
        assert (await said(connected, "search_sessions", query="desk"))[1] == "Nothing is found."
        assert not (await said(connected, "ask_model", question="Who are you?"))[0]  # this API has no model
        assert not (await said(connected, "nothing"))[0]
    (folder,) = home.folder.glob(".local/state/roost/worker/anna@*/serve-1")
    log = AuditLog(folder / "audit")
    assert log.verify().intact
    actions = [entry.action for entry in log.tail(1000)]
    assert actions.count("tool.call") == actions.count("tool.result") == 12


async def test_what_is_given_can_be_narrowed_and_two_clients_do_not_meet(hub: Served, home: Home) -> None:
    assert hub
    async with client(home, "--read-only", "--workspace", "project") as first, client(home, "--only", "list") as second:
        names = {tool.name for tool in (await first.list_tools()).tools}
        assert "read" in names
        assert not names & {"write", "edit", "shell", "undo"}
        assert await said(first, "read", path="a.txt") == (True, "alpha of project\n")
        assert not (await said(first, "write", path="x", content="y"))[0]
        assert [tool.name for tool in (await second.list_tools()).tools] == ["list"]
    refused = await asyncio.to_thread(home.run, "mcp", "serve", "--workspace", "none", check=False)
    assert (refused.returncode, refused.stdout) == (NOT_FOUND, "")
    assert "no workspace none" in refused.stderr


async def test_our_worker_uses_our_server(hub: Served, home: Home, tmp_path: Path) -> None:
    assert hub
    variables = {name: value for name, value in home.environment().items() if name.startswith(("ROOST", "PYTHON"))}
    ours = made({
        "name": "self", "owner": "anna", "command": home.words("mcp", "serve", "--workspace", "project"),
        "environment": {**variables, "HOME": str(home.folder)}, "sandbox": False,
    })  # fmt: skip
    named = Workspaces(tmp_path / "none.json")
    mcp = McpTools([ours], tmp_path / "servers", named)
    runner = LocalRunner("anna", named, tmp_path / "state", [], mcp.tools)
    async with mcp.running():
        connection: Connection = mcp.connections["self"]
        await eventually(lambda: bool(mcp.tools()), 60, "our own server")
        assert connection.server.startswith("roost ")
        plain = ToolCall(id="0", name="mcp__self__read", arguments={"path": "a.txt"}, session="s")
        assert (await runner.run(plain)).outcome is Outcome.REFUSED  # without a sandbox its own word does not count
        call = plain.model_copy(update={"id": "1", "allowed": True})
        result = await runner.run(call)
        assert (result.outcome, result.text) == (Outcome.OK, "alpha of project\n")
        wrong = call.model_copy(update={"id": "2", "arguments": {"path": "../secret.txt"}})
        assert (await runner.run(wrong)).outcome is Outcome.FAILED
    assert json.dumps(ours.shown()).count("anna") == 1  # the key is nowhere shown
