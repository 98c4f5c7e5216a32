"""Servers by the official package, and hostile ones, as programs: what they offer, what they say, and their end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from roost.agent.mcp import connection as connection_module
from roost.agent.mcp.connection import MOST_TOOLS, Connection
from roost.agent.mcp.process import Ended
from roost.agent.mcp.servers import McpServer, made
from roost.agent.mcp.tools import McpTools, opener
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult
from roost.agent.tools.errors import ToolError
from roost.agent.tools.read import READ
from roost.agent.tools.runner import LocalRunner
from roost.agent.tools.workspaces import Workspaces
from roost.ops.errors import RoostError
from tests.support.gateway import REPOSITORY
from tests.support.net import eventually, free_port

pytestmark = pytest.mark.timeout(100)
EXAMPLE = [sys.executable, "-P", "-m", "tests.support.mcp_example"]
HOSTILE = [sys.executable, "-P", str(REPOSITORY / "tests/support/mcp_hostile.py")]


def server(*command: str, name: str = "ex", **values: object) -> McpServer:
    given: dict[str, object] = {
        "name": name, "owner": "anna", "command": command or EXAMPLE, "sandbox": False,
        "environment": {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'app'}", "TOKEN": "heliotrope"}, **values,
    }  # fmt: skip
    return made({key: value for key, value in given.items() if value is not None})


class Desk:
    """A runner with the tools of some servers."""

    def __init__(self, base: Path, *servers: McpServer) -> None:
        self.folder = base / "servers"
        named = Workspaces(base / "workspaces.json")
        self.mcp = McpTools(servers, self.folder, named)
        self.runner = LocalRunner("anna", named, base / "state", [READ], self.mcp.tools)
        self.count = 0

    @asynccontextmanager
    async def running(self, tools: int = 1) -> AsyncIterator[None]:
        async with self.mcp.running():
            await eventually(lambda: len(self.mcp.tools()) >= tools, 60, "the tools of the servers")
            yield

    async def call(self, name: str, **arguments: JsonValue) -> ToolResult:
        self.count += 1
        call = ToolCall(id=f"c{self.count}", name=f"mcp__{name}", arguments=arguments, session="s", allowed=True)
        return await self.runner.run(call)


async def test_its_tools_are_offered_bounded_and_marked_and_can_be_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_API_KEY", "a secret of the worker")
    desk = Desk(tmp_path, server())
    async with desk.running():
        specs = {spec.name: spec for spec in desk.runner.tools()}
        assert {"read", "mcp__ex__add", "mcp__ex__where"} <= set(specs)
        add = specs["mcp__ex__add"]
        assert add.permission is Permission.FOREIGN
        assert not add.safe_to_repeat
        assert add.parameters["required"] == ["first"]
        assert add.description.startswith("add of the MCP server ex, which is not Roost's and says of it:")
        assert "\x1b" not in add.description
        added = await desk.call("ex__add", first=2, second=3)
        assert (added.outcome, added.text) == (Outcome.OK, "5")
        place: JsonValue = {"latitude": 1.5, "longitude": 2}
        assert (await desk.call("ex__where", place=place, unit="radian")).text == "1.5 2.0 radian"
        asked = ToolCall(id="n", name="mcp__ex__add", arguments={"first": 2}, session="s")  # a hub that forgot to ask
        assert "did not allow" in (await desk.runner.run(asked)).text
        wrong = await desk.call("ex__where", place={"latitude": 1, "longitude": 999})
        assert wrong.outcome is Outcome.FAILED
        environment = (await desk.call("ex__environment")).text
        assert "TOKEN" in environment
        assert "ROOST" not in environment
        much = await desk.call("ex__much")
        assert len(much.text) <= 64_000
        assert "cut: 1,000,000 bytes" in much.text
        assert (await desk.call("ex__grow")).text == "grown"
        await eventually(lambda: "mcp__ex__grown" in {s.name for s in desk.runner.tools()}, 30, "the tool that came")
    assert (await desk.call("ex__add", first=2)).outcome is Outcome.REFUSED


async def test_a_server_that_dies_in_a_call_is_started_anew_and_nothing_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "FIRST_RETRY_S", 0.05)
    desk = Desk(tmp_path, server())
    async with desk.running():
        died = await desk.call("ex__die")
        assert died.outcome is Outcome.UNKNOWN
        assert "may have been done" in died.text

        async def works() -> bool:
            result = await desk.call("ex__add", first=1)
            assert result.outcome in {Outcome.OK, Outcome.REFUSED}  # never that it may have been done
            return result.text == "2"

        await eventually(works, 60, "the server to be there again")


@pytest.mark.parametrize("error", [RoostError("It cannot be read.", fix="Correct it."), AttributeError("x")])
async def test_whatever_goes_wrong_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(connection_module, "FIRST_RETRY_S", 0.05)
    opens = opener(server(), tmp_path, Workspaces(tmp_path / "w"))
    failures = [error]

    def fails_once(ended: Ended) -> AbstractAsyncContextManager[Any]:
        if failures:
            raise failures.pop()
        return opens(ended)

    made_one = Connection("ex", fails_once)
    running = asyncio.create_task(made_one.run())
    try:
        await eventually(lambda: made_one.ready or running.done(), 60, "the server")
        assert made_one.ready
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_call_that_is_cancelled_leaves_the_server_usable_and_the_outcome_unknown(tmp_path: Path) -> None:
    desk = Desk(tmp_path, server(timeout_s=60))
    async with desk.running():
        waiting = asyncio.create_task(desk.call("ex__wait"))
        await eventually((desk.folder / "ex" / "waiting").exists, 30, "the call")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        again = await desk.runner.run(ToolCall(id="c1", name="mcp__ex__wait", arguments={}, session="s"))
        assert again.outcome is Outcome.UNKNOWN
        assert (await desk.call("ex__add", first=1)).text == "2"
    gone = int((desk.folder / "ex" / "waiting").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(gone, 0)


async def test_a_call_without_an_end_is_ended_in_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path, server(timeout_s=0.5))
    async with desk.running():
        result = await desk.call("ex__wait")
    assert result.outcome is Outcome.UNKNOWN
    assert "took more than" in result.text


async def test_a_server_at_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "FIRST_RETRY_S", 0.05)
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'app'}"}
    desk = Desk(tmp_path, made({"name": "far", "owner": "anna", "url": f"http://127.0.0.1:{port}/mcp"}))
    async with desk.mcp.running():
        await eventually(lambda: "started" not in desk.mcp.connections["far"].problem, 30, "the first attempt")
        assert not desk.mcp.tools()
        process = await asyncio.create_subprocess_exec(*EXAMPLE, "http", str(port), env=environment, cwd=tmp_path)
        try:
            await eventually(lambda: bool(desk.mcp.tools()), 60, "the server")
            assert (await desk.call("far__add", first=2)).text == "3"
        finally:
            process.kill()
            await process.wait()
        lost = await desk.call("far__add", first=2)
        assert lost.outcome in {Outcome.UNKNOWN, Outcome.REFUSED}


@pytest.mark.parametrize(
    ("kind", "why"),
    [("ends", "no token [2J"), ("endless", "more than"), ("noise", "no protocol"), ("nonsense", "as the protocol"),
     ("silent", "did not answer")],
)  # fmt: skip
async def test_what_is_no_server_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, why: str
) -> None:
    monkeypatch.setattr(connection_module, "START_S", 1.0 if kind == "silent" else 30.0)
    made_one = Connection("bad", opener(server(*HOSTILE, kind), tmp_path, Workspaces(tmp_path / "w")))
    before = time.monotonic()
    with pytest.raises(ToolError) as told:
        await made_one.once()
    assert why in str(told.value)
    assert str(told.value).isprintable()
    assert time.monotonic() - before < 30


async def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    made_one = Connection("bad", opener(server("/nowhere/mcp"), tmp_path, Workspaces(tmp_path / "w")))
    with pytest.raises(ToolError, match="no program /nowhere/mcp"):
        await made_one.once()


async def test_hostile_listings_are_bounded(tmp_path: Path) -> None:
    desk = Desk(tmp_path, server(*HOSTILE, "tools", name="a"), server(*HOSTILE, "pages", name="b"))
    async with desk.running(2):
        await eventually(lambda: all(one.ready for one in desk.mcp.connections.values()), 60, "both servers")
        specs = desk.runner.tools()
        names = [spec.name for spec in specs]
        assert len(set(names)) == len(names) <= MOST_TOOLS + 1
        assert all(len(spec.description) < 600 and spec.description.isprintable() for spec in specs)
        assert len(desk.mcp.connections["b"].tools) <= MOST_TOOLS
        assert len(desk.mcp.connections["a"].server) <= 80
        called = await desk.call("a__fine", a="x")
        assert (called.outcome, "no result of a tool" in called.text) == (Outcome.FAILED, True)


async def test_a_listing_that_is_long_to_look_at_holds_nothing_up(tmp_path: Path) -> None:
    longest, last = 0.0, time.monotonic()

    async def beat() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    desk = Desk(tmp_path, server(*HOSTILE, "slow"))
    beats = asyncio.create_task(beat())
    try:
        async with desk.running():
            assert [spec.name for spec in desk.runner.tools() if "mcp" in spec.name] == ["mcp__ex__fine"]
    finally:
        beats.cancel()
    assert longest < 8.0  # looked at on the loop it stood still for 20 s and more; with room for a busy machine


async def test_one_that_does_not_want_to_end_is_ended_with_its_children(tmp_path: Path) -> None:
    desk = Desk(tmp_path, server(*HOSTILE, "stays"))
    async with desk.running():
        assert (await desk.call("ex__fine", a="x")).text == "ok"
    pids = (desk.folder / "ex" / "pids").read_text().split()
    await eventually(lambda: not any(map(_runs, pids)), 10, "the end of all of it")


def _runs(pid: str) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter of one that ends while it is read
        return False
