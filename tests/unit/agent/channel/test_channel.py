"""Both ends over a real socket: who may do what, loss and return of hub and worker, calls that are cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roost.agent.channel.client import WorkerClient
from roost.agent.channel.desk import Desk
from roost.agent.channel.wire import CALLS_PATH, MOST_ANNOUNCED_BYTES, PATH, TOOLS_PATH, Announced, Request
from roost.agent.channel.worker import Worker
from roost.agent.hub import MOST_BODY_BYTES
from roost.agent.skills.skill import Skill
from roost.agent.tool import Outcome, Permission, ToolRunner
from roost.agent.tools.base import Arguments, Done, Tool, spec_of
from roost.agent.tools.runner import LocalRunner
from roost.agent.tools.undo_store import Place
from roost.agent.tools.workspaces import Workspaces
from roost.ops.errors import RoostError
from tests.support.agent_hub import Hands, Served, announced, call, client_of, served
from tests.support.net import eventually, free_port


@asynccontextmanager
async def working(url: str, runner: ToolRunner, key: str = "anna") -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker's client."""
    async with aiohttp.ClientSession() as http:
        task = asyncio.create_task(WorkerClient(http, url, key, runner, announced).work())
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, RoostError):
                await task


async def there(hub: Served, owner: str = "anna") -> None:
    await eventually(lambda: bool(hub.desk.of(owner)), 10, "the worker")


@pytest.mark.parametrize("who", ["", "nobody", "rita", "bert"])
async def test_each_route_of_the_hub_needs_a_key_that_may_and_its_own_worker(tmp_path: Path, who: str) -> None:
    async with served(tmp_path) as hub, client_of(who) as client:
        lease = hub.desk.announce("anna", announced()).lease
        knowledge = hub.hub.agents.knowledge
        fact, _ = knowledge.memory.remember("anna", "The desk is of walnut.", source="user")
        knowledge.skills.save("anna", SKILL)
        of_anna = {
            "lease": lease,
            "session": hub.hub.agents.store.create("anna").id,
            "fact": fact.id,
            "name": SKILL.name,
            "question": "q1",
            "tool": "shell",
        }
        hub.hub.agents.allowed.add("anna", "shell", "shell: removes the desk")
        assert len(hub.hub.routes) >= 18
        for method, route in hub.hub.routes:
            path = route.format_map(of_anna)
            async with client.request(method, f"{hub.url}{path}", json=BODIES.get((method, route), {})) as answer:
                wanted = {"": 401, "nobody": 401, "rita": 403}.get(who)
                if wanted:
                    assert answer.status == wanted, (method, path)
                elif "{" in route and (method, route) not in OWN:
                    assert answer.status == 404, (method, path)
                else:
                    assert "desk" not in await answer.text()
        assert [worker.lease for worker in hub.desk.of("anna")] == [lease]
        assert knowledge.memory.store.all_of("anna") == [fact]
        assert [one.mark for one in hub.hub.agents.allowed.of("anna")] == ["shell: removes the desk"]
        assert knowledge.skills.get("anna", SKILL.name).steps == SKILL.steps


SKILL = Skill(name="tidy", description="Tidies the desk", steps="Put the pens away.", source="user")
OWN = {("PUT", "/roost/v1/skills/{name}")}  # makes one of that name for whoever asks
BODIES = {
    ("POST", PATH): announced("berts", "tower").model_dump(mode="json"),
    ("PUT", f"{PATH}/{{lease}}"): announced().model_dump(mode="json"),
    ("POST", CALLS_PATH): call().model_dump(),
    ("POST", f"{CALLS_PATH}/recall"): call().model_dump(),
    ("POST", f"{PATH}/{{lease}}/results"): {"id": "c1", "outcome": "ok", "text": "forged"},
    ("POST", "/roost/v1/sessions/{session}/messages"): {"text": "x"},
    ("POST", "/roost/v1/sessions/{session}/questions/{question}"): {"answer": "yes"},
    ("POST", "/roost/v1/allowed"): {"tool": "other", "mark": "other"},
}


async def test_a_call_is_run_and_answered_and_a_second_one_of_its_id_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha")
    named = Workspaces(tmp_path / "workspaces.json")
    named.add(folder, "anna")
    runner = LocalRunner("anna", named, tmp_path / "worker")

    def offers() -> Announced:
        return announced().model_copy(update={"tools": tuple(runner.tools())})

    async with served(tmp_path / "hub") as hub, aiohttp.ClientSession() as http:
        task = asyncio.create_task(WorkerClient(http, hub.url, "anna", runner, offers).work())
        await there(hub)
        write = call("write", "w").model_copy(update={"arguments": {"path": "b.txt", "content": "beta"}})
        assert (await hub.desk.runner("anna").run(write)).outcome is Outcome.OK
        assert (folder / "b.txt").read_text() == "beta"
        (folder / "b.txt").write_text("mine")
        again = await hub.desk.runner("anna").run(write)
        assert (again.outcome, again.changed) == (Outcome.OK, ("b.txt",))
        assert (folder / "b.txt").read_text() == "mine"
        out = call("read", "r").model_copy(update={"arguments": {"path": "../workspaces.json"}})
        assert (await hub.desk.runner("anna").run(out)).outcome is Outcome.REFUSED
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not hub.desk.of("anna")  # it said that it leaves


async def test_a_program_of_the_key_calls_over_the_api_and_is_told_later_what_came_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    named = Workspaces(tmp_path / "workspaces.json")
    named.add(folder, "anna")
    runner = LocalRunner("anna", named, tmp_path / "worker")

    def offers() -> Announced:
        return announced().model_copy(update={"tools": tuple(runner.tools())})

    async with served(tmp_path / "hub") as hub, aiohttp.ClientSession() as http, client_of("anna") as client:
        write = call("write", "w").model_copy(update={"arguments": {"path": "b.txt", "content": "beta"}})

        async def ask(path: str) -> dict[str, Any]:
            async with client.post(f"{hub.url}{path}", json=write.model_dump()) as answer:
                assert answer.status == 200
                return dict(await answer.json())

        assert (await ask(f"{CALLS_PATH}/recall"))["outcome"] == "unknown"  # no worker is there
        task = asyncio.create_task(WorkerClient(http, hub.url, "anna", runner, offers).work())
        await there(hub)
        async with client.get(f"{hub.url}{TOOLS_PATH}") as answer:
            assert "write" in {spec["name"] for spec in (await answer.json())["data"]}
        assert (await ask(f"{CALLS_PATH}/recall"))["outcome"] == "unknown"  # it was never made, and is not by asking
        assert not (folder / "b.txt").exists()
        assert (await ask(CALLS_PATH))["outcome"] == "ok"
        (folder / "b.txt").write_text("mine")
        known = await ask(f"{CALLS_PATH}/recall")
        assert (known["id"], known["outcome"], known["changed"]) == ("w", "ok", ["b.txt"])
        assert (folder / "b.txt").read_text() == "mine"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    entries = [json.loads(line) for line in (tmp_path / "hub/audit/audit.jsonl").read_text().splitlines()]
    assert [entry["action"] for entry in entries] == ["tool.call", "tool.result"]


async def test_who_recalls_a_call_that_runs_is_told_its_end(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def act(_given: Arguments, _place: Place | None) -> Done:
        begun.set()
        await go_on.wait()
        return Done("done")

    slow = Tool(spec_of("slow", "", Arguments, Permission.RUN), Arguments, act, needs_place=False)
    runner = LocalRunner("anna", Workspaces(tmp_path / "workspaces.json"), tmp_path / "worker", [slow])
    running = asyncio.create_task(runner.run(call("slow")))
    await begun.wait()
    recalled = asyncio.create_task(runner.recall(call("slow")))
    await asyncio.sleep(0)
    go_on.set()
    assert (await recalled) == (await running)


async def test_cancelling_reaches_the_tool(tmp_path: Path) -> None:
    hands = Hands()
    async with served(tmp_path) as hub, working(hub.url, hands):
        await there(hub)
        running = asyncio.create_task(hub.desk.runner("anna").run(call("wait")))
        await eventually(lambda: hands.asked == ["c1"], 10, "the call")
        running.cancel()
        await eventually(lambda: hands.cancelled == ["c1"], 10, "the tool to be cancelled")
        assert (await hub.desk.runner("anna").run(call(number="c2"))).text == "seen in None"


async def test_a_worker_that_is_ended_in_a_call_is_known_at_once_and_nothing_is_repeated(tmp_path: Path) -> None:
    hands = Hands()
    async with served(tmp_path, Desk(poll_s=30, gone_s=30)) as hub:
        async with working(hub.url, hands):
            await there(hub)
            running = asyncio.create_task(hub.desk.runner("anna").run(call("wait")))
            await eventually(lambda: hands.asked == ["c1"], 10, "the call")
        result = await running
        assert result.outcome is Outcome.UNKNOWN
        assert "Look before" in result.text
        async with working(hub.url, hands):
            await there(hub)
            assert (await hub.desk.runner("anna").run(call(number="c2"))).outcome is Outcome.OK
        assert hands.asked == ["c1", "c2"]


async def test_a_worker_comes_back_to_a_hub_that_was_started_anew(tmp_path: Path) -> None:
    hands, port = Hands(), free_port()
    async with aiohttp.ClientSession() as http:
        task = asyncio.create_task(WorkerClient(http, f"http://127.0.0.1:{port}", "anna", hands, announced).work())
        for number in ("c1", "c2"):
            async with served(tmp_path, port=port) as hub:
                await there(hub)
                assert (await hub.desk.runner("anna").run(call(number=number))).outcome is Outcome.OK
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert hands.asked == ["c1", "c2"]


async def test_what_is_offered_may_change_while_it_works(tmp_path: Path) -> None:
    folders = ["one"]
    async with served(tmp_path, Desk(poll_s=0.05)) as hub, aiohttp.ClientSession() as http:
        client = WorkerClient(http, hub.url, "anna", Hands(), lambda: announced(folders=folders))
        task = asyncio.create_task(client.work())
        await there(hub)
        folders.append("two")
        await eventually(lambda: len(hub.desk.of("anna")[0].announced.workspaces) == 2, 10, "the new workspace")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("key", "said"), [("nobody", "no key"), ("rita", "role")])
async def test_a_key_that_may_not_ends_the_worker_with_a_sentence(tmp_path: Path, key: str, said: str) -> None:
    async with served(tmp_path) as hub, working(hub.url, Hands(), key) as task:
        with pytest.raises(RoostError, match=said):
            await task


async def test_a_worker_whose_place_was_taken_ends(tmp_path: Path) -> None:
    async with served(tmp_path) as hub, working(hub.url, Hands()) as first:
        await there(hub)
        async with working(hub.url, Hands()):
            with pytest.raises(RoostError, match="took its place"):
                await first


async def test_too_large_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as hub, client_of("anna") as client:
        wide = announced(folders=[f"{n:0>90}" for n in range(256)]).model_dump(mode="json")
        for folder in wide["workspaces"]:
            folder["path"] = "/" * 2000
        async with client.post(f"{hub.url}{PATH}", json=wide) as answer:
            assert answer.status == 413
            assert str(MOST_ANNOUNCED_BYTES) in await answer.text()
        lease = hub.desk.announce("anna", announced()).lease
        result = {"id": "c1", "outcome": "ok", "text": "x" * MOST_BODY_BYTES}
        async with client.post(f"{hub.url}{PATH}/{lease}/results", json=result) as answer:
            assert answer.status == 413


async def test_connected_workers_are_listed_without_their_lease(tmp_path: Path) -> None:
    async with served(tmp_path) as hub, client_of("anna") as client:
        lease = hub.desk.announce("anna", announced()).lease
        async with client.get(f"{hub.url}{PATH}") as answer:
            text = await answer.text()
        assert '"host":"desk"' in text
        assert lease not in text


async def test_a_hub_that_stops_is_not_asked_without_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    real = Worker.requests

    async def requests(worker: Worker, after: int, wait_s: float, left: Awaitable[None]) -> Sequence[Request]:
        times.append(asyncio.get_running_loop().time())
        return await real(worker, after, wait_s, left)

    monkeypatch.setattr(Worker, "requests", requests)
    async with served(tmp_path) as hub, working(hub.url, Hands()):
        await there(hub)
        await eventually(lambda: bool(times), 10, "a question")
        hub.desk.let_go()
        await eventually(lambda: len(times) >= 5, 20, "more questions")
    assert times[4] - times[1] >= 3 * 0.2
