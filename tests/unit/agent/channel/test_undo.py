"""`/undo` over the API: files put back from what was kept, as a call that session and audit log know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roost.agent.channel.client import WorkerClient
from roost.agent.channel.wire import Announced
from roost.agent.live import Live, Said
from roost.agent.service import Asker
from roost.agent.tool import Outcome, ToolCall, ToolResult
from roost.agent.tools.runner import LocalRunner
from roost.agent.tools.workspaces import Workspaces
from roost.agent.turn import tell_call
from roost.agent.work import Told
from tests.support.agent_hub import Served, announced, client_of, served
from tests.support.net import eventually

PATH = "/roost/v1/sessions"


def asker() -> Asker:
    return Asker("anna", "anna", "user")


@asynccontextmanager
async def with_worker(folder: Path) -> AsyncIterator[tuple[Served, aiohttp.ClientSession]]:
    """Run a hub and a worker with one workspace."""
    (folder / "project").mkdir()
    named = Workspaces(folder / "workspaces.json")
    named.add(folder / "project", "anna")
    runner = LocalRunner("anna", named, folder / "worker")

    def offers() -> Announced:
        return announced().model_copy(update={"tools": tuple(runner.tools())})

    async with served(folder / "hub") as hub, client_of("anna") as client:
        task = asyncio.create_task(WorkerClient(client, hub.url, "anna", runner, offers).work())
        await eventually(lambda: bool(hub.desk.of("anna")), 10, "the worker")
        yield hub, client
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def posted(client: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with client.post(url, json={}) as answer:
        return {"status": answer.status, **await answer.json()}


async def write(hub: Served, session: str, number: int, text: str) -> None:
    arguments = {"path": "a.txt", "content": text}
    call = ToolCall(id=f"{session}-{number}", name="write", arguments=arguments, session=session)  # type: ignore[arg-type]  # strings are JSON
    assert (await hub.desk.runner("anna").run(call)).outcome.value == "ok"


async def test_it_puts_back_one_call_after_another_and_nothing_of_another_conversation(tmp_path: Path) -> None:
    file = tmp_path / "project" / "a.txt"
    async with with_worker(tmp_path) as (hub, client):
        mine, other = [(await posted(client, f"{hub.url}{PATH}"))["id"] for _ in range(2)]
        await write(hub, mine, 1, "one")
        await write(hub, mine, 2, "two")
        assert (await posted(client, f"{hub.url}{PATH}/{other}/undo"))["outcome"] == "failed"
        assert file.read_text() == "two"
        watcher = (await hub.hub.agents.live(asker(), mine)).watch()
        first = await posted(client, f"{hub.url}{PATH}/{mine}/undo")
        assert (first["outcome"], first["changed"], file.read_text()) == ("ok", ["a.txt"], "one")
        kinds = [watcher.get_nowait()["type"] for _ in range(3)]
        assert kinds == ["idle", "tool_call", "tool_result"]
        assert (await posted(client, f"{hub.url}{PATH}/{mine}/undo"))["outcome"] == "ok"
        assert not file.exists()
        assert (await posted(client, f"{hub.url}{PATH}/{mine}/undo"))["outcome"] == "failed"
        async with client.get(f"{hub.url}{PATH}/{mine}") as answer:
            bodies = [record["body"] for record in (await answer.json())["records"]]
        assert [body["call"]["name"] for body in bodies if body["kind"] == "tool_call"] == ["undo"] * 3
    entries = [json.loads(line) for line in (tmp_path / "hub/audit/audit.jsonl").read_text().splitlines()]
    assert [e["action"] for e in entries if e["session"] == mine] == ["tool.call", "tool.result"] * 3


async def test_what_the_user_changed_since_is_left_alone(tmp_path: Path) -> None:
    async with with_worker(tmp_path) as (hub, client):
        session = (await posted(client, f"{hub.url}{PATH}"))["id"]
        await write(hub, session, 1, "one")
        (tmp_path / "project/a.txt").write_text("mine")
        assert "left alone" in (await posted(client, f"{hub.url}{PATH}/{session}/undo"))["text"]
        assert (tmp_path / "project/a.txt").read_text() == "mine"


async def test_not_while_a_turn_is_under_way_and_not_without_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def take(_agents: object, _text: str, _turn: str, _live: Live) -> None:
        begun.set()
        await go_on.wait()

    monkeypatch.setattr("roost.agent.service.Agents._take", take)
    async with served(tmp_path) as hub, client_of("anna") as client:
        session = (await posted(client, f"{hub.url}{PATH}"))["id"]
        (await hub.hub.agents.live(asker(), session)).say(Said("work"))
        await begun.wait()
        assert (await posted(client, f"{hub.url}{PATH}/{session}/undo"))["status"] == 409
        go_on.set()
        live = await hub.hub.agents.live(asker(), session)
        await eventually(lambda: not live.busy, 10, "the turn's end")
        refused = await posted(client, f"{hub.url}{PATH}/{session}/undo")
        assert refused["outcome"] == "refused"
        assert "roost worker" in refused["text"]


async def test_a_result_that_was_told_is_recorded_also_if_the_turn_ends_there() -> None:
    begun, go_on, kept = asyncio.Event(), asyncio.Event(), list[object]()

    async def record(*bodies: object) -> None:
        begun.set()
        await go_on.wait()
        kept.extend(bodies)

    async def emit(_event: object) -> None:
        raise AssertionError("told before it was recorded")

    call = ToolCall(id="c", name="write", arguments={}, session="s")
    result = ToolResult(id="c", outcome=Outcome.OK, text="")
    telling = asyncio.create_task(tell_call(Told(call, result), "t", record, emit))
    await begun.wait()
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    go_on.set()
    await eventually(lambda: len(kept) == 1, 5, "the record")


async def test_a_turn_begins_after_the_undo_that_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, undoing, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def take(_agents: object, _text: str, _turn: str, _live: Live) -> None:
        begun.set()

    async def run(_runner: object, call: ToolCall) -> ToolResult:
        undoing.set()
        await go_on.wait()
        return ToolResult(id=call.id, outcome=Outcome.OK, text="put back: a.txt")

    monkeypatch.setattr("roost.agent.service.Agents._take", take)
    monkeypatch.setattr("roost.agent.channel.desk.WorkerRunner.run", run)
    async with served(tmp_path) as hub, client_of("anna") as client:
        session = (await posted(client, f"{hub.url}{PATH}"))["id"]
        undo = asyncio.create_task(posted(client, f"{hub.url}{PATH}/{session}/undo"))
        await undoing.wait()
        live = await hub.hub.agents.live(asker(), session)
        live.say(Said("work"))
        assert (await posted(client, f"{hub.url}{PATH}/{session}/undo"))["status"] == 409
        assert live.busy
        assert not begun.is_set()
        go_on.set()
        assert (await undo)["outcome"] == "ok"
        await asyncio.wait_for(begun.wait(), 5)
