"""The hub's end of the channel: whose call goes where, what is given out, and what is said where no answer comes."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from roost.agent.channel.desk import SILENT, Desk, NoWorkerError, ReplacedError, TooManyError
from roost.agent.channel.wire import MOST_PENDING, MOST_RESULT_BYTES, MOST_WORKERS_OF_KEY, Announced
from roost.agent.channel.worker import LEFT, NOT_BEGUN, Worker
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolSpec
from tests.support.agent_hub import announced, call, tool
from tests.support.net import eventually
from tests.unit.agent.permission.world import foreign


async def stays() -> None:
    await asyncio.Event().wait()


async def asked(worker: Worker, after: int = 0) -> list[ToolCall]:
    return [one.call for one in await worker.requests(after, 5, stays()) if one.call]


@pytest.fixture
def desk() -> Desk:
    return Desk(poll_s=5, gone_s=5, answer_s=5)


async def test_a_call_goes_to_a_worker_of_its_own_key_only(desk: Desk) -> None:
    mine, theirs = desk.announce("anna", announced()), desk.announce("bert", announced())
    assert [spec.name for spec in desk.runner("anna").tools()] == ["look", "wait"]
    assert not desk.runner("carl").tools()
    running = asyncio.create_task(desk.runner("anna").run(call()))
    assert await asked(mine) == [call(workspace=None)]
    assert not await theirs.requests(0, 0, stays())
    assert not theirs.answer(ToolResult(id="c1", outcome=Outcome.OK, text="forged"))
    assert mine.answer(ToolResult(id="c1", outcome=Outcome.OK, text="true"))
    assert (await running).text == "true"


async def test_an_answer_counts_once_and_only_while_somebody_waits(desk: Desk) -> None:
    worker = desk.announce("anna", announced())
    running = asyncio.create_task(desk.runner("anna").run(call()))
    await asked(worker)
    first, second = (ToolResult(id="c1", outcome=Outcome.OK, text=text) for text in ("first", "second"))
    assert [worker.answer(first), worker.answer(second)] == [True, False]
    assert (await running).text == "first"
    assert not worker.answer(first)


async def test_a_request_is_given_out_again_until_the_worker_asks_for_what_is_after_it(desk: Desk) -> None:
    worker = desk.announce("anna", announced())
    running = asyncio.create_task(desk.runner("anna").run(call()))
    (first,) = await worker.requests(0, 5, stays())
    assert list(await worker.requests(0, 5, stays())) == [first]
    assert not await worker.requests(first.number, 0, stays())
    running.cancel()
    (ends,) = await worker.requests(first.number, 5, stays())
    assert ends.cancel == "c1"
    assert not await worker.requests(ends.number, 0, stays())


async def test_a_call_that_was_not_given_out_is_not_cancelled_there(desk: Desk) -> None:
    worker = desk.announce("anna", announced())
    running = asyncio.create_task(desk.runner("anna").run(call()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not await worker.requests(0, 0, stays())


async def test_a_worker_that_vanishes_leaves_unknown_what_it_had_and_undone_what_it_had_not() -> None:
    desk = Desk(gone_s=0.05)
    worker = desk.announce("anna", announced())
    had = asyncio.create_task(desk.runner("anna").run(call(number="had")))
    await asked(worker)
    had_not = asyncio.create_task(desk.runner("anna").run(call(number="had-not")))
    assert ((await had).outcome, (await had).text) == (Outcome.UNKNOWN, LEFT)
    assert ((await had_not).outcome, (await had_not).text) == (Outcome.FAILED, NOT_BEGUN)
    assert not desk.of("anna")
    refused = await desk.runner("anna").run(call())
    assert refused.outcome is Outcome.REFUSED
    assert "roost worker" in refused.text


async def test_a_question_that_waits_is_a_sign_of_life() -> None:
    desk = Desk(gone_s=0.05)
    worker = desk.announce("anna", announced())
    assert not await worker.requests(0, 0.2, stays())
    assert desk.of("anna") == [worker]
    await eventually(lambda: not desk.of("anna"), 5, "it to be gone")


async def test_who_leaves_while_it_asks_is_noticed_at_once() -> None:
    desk = Desk(gone_s=0.05)
    worker = desk.announce("anna", announced())
    async with asyncio.timeout(2):
        assert not await worker.requests(0, 60, asyncio.sleep(0))
        await eventually(lambda: not desk.of("anna"), 1, "it to be gone")


async def test_one_that_comes_again_has_what_the_one_before_was_asked_and_the_one_before_nothing(desk: Desk) -> None:
    worker = desk.announce("anna", announced())
    old = worker.lease
    running = asyncio.create_task(desk.runner("anna").run(call()))
    await asked(worker)
    waits = asyncio.create_task(worker.requests(1, 60, stays()))
    await asyncio.sleep(0)
    again = desk.announce("anna", announced())
    assert list(await waits) == []
    with pytest.raises(ReplacedError):
        desk.worker("anna", old)
    assert [one.id for one in await asked(again)] == ["c1"]
    again.answer(ToolResult(id="c1", outcome=Outcome.OK, text="x"))
    assert (await running).text == "x"
    with pytest.raises(NoWorkerError):
        desk.worker("bert", old)
    with pytest.raises(NoWorkerError):
        desk.worker("bert", again.lease)


async def test_a_worker_that_lives_and_says_nothing_is_not_waited_for_for_ever() -> None:
    desk = Desk(answer_s=0.05)
    slow = announced().model_copy(update={"tools": (tool("look", timeout_s=0.05),)})
    worker = desk.announce("anna", slow)
    running = asyncio.create_task(desk.runner("anna").run(call()))
    (given,) = await worker.requests(0, 5, stays())
    result = await running
    assert (result.outcome, result.text) == (Outcome.UNKNOWN, SILENT)
    assert [one.cancel for one in await worker.requests(given.number, 5, stays())] == ["c1"]


async def test_bounds(desk: Desk) -> None:
    worker = desk.announce("anna", announced())
    tasks = [asyncio.create_task(desk.runner("anna").run(call(number=f"c{n}"))) for n in range(MOST_PENDING)]
    await asyncio.sleep(0)
    assert (await desk.runner("anna").run(call(number="more"))).outcome is Outcome.REFUSED
    assert len(await asked(worker)) == MOST_PENDING
    worker.answer(ToolResult(id="c0", outcome=Outcome.OK, text="é" * MOST_RESULT_BYTES))
    text = (await tasks[0]).text
    assert len(text.encode()) < MOST_RESULT_BYTES + 100
    assert "cut" in text
    for task in tasks:
        task.cancel()
    for number in range(1, MOST_WORKERS_OF_KEY):
        desk.announce("anna", announced(f"w{number + 1}"))
    with pytest.raises(TooManyError):
        desk.announce("anna", announced("one-more"))
    desk.announce("bert", announced())


@pytest.mark.parametrize("seconds", [0, -1, 601, float("inf"), float("nan")])
def test_no_tool_holds_a_turn_for_ever(seconds: float) -> None:
    with pytest.raises(ValidationError):
        Announced(id="w", host="h", version="1", workspaces=(), tools=(tool("look", timeout_s=seconds),))


async def test_which_worker_a_workspace_means(desk: Desk) -> None:
    desk.announce("anna", announced("w1", "desk", ["site", "both"]))
    lap = desk.announce("anna", announced("w2", "lap", ["both", "book"]))
    desk.announce("bert", announced("w3", "tower", ["secret"]))

    async def refusal(workspace: str | None) -> str:
        result = await desk.runner("anna").run(call(workspace=workspace))
        assert result.outcome is Outcome.REFUSED
        return result.text

    assert "desk/site, desk/both, lap/both, lap/book" in await refusal(None)
    assert "More than one" in await refusal("both")
    assert "tower" not in await refusal("secret")
    assert "no workspace" in await refusal("desk/book")
    for meant, there in (("lap/both", "both"), ("book", "book")):
        running = asyncio.create_task(desk.runner("anna").run(call(workspace=meant)))
        assert [one.workspace for one in await asked(lap)] == [there]
        lap.answer(ToolResult(id="c1", outcome=Outcome.OK, text=""))
        assert (await running).outcome is Outcome.OK


async def test_a_tool_that_the_worker_has_not_is_refused(desk: Desk) -> None:
    desk.announce("anna", announced())
    assert "no tool shout" in (await desk.runner("anna").run(call("shout"))).text


SEND = "mcp__ex__send"


def offering(host: str, spec: ToolSpec, *folders: str) -> Announced:
    return announced(host, host, folders).model_copy(update={"tools": (tool("look"), spec)})


def found(desk: Desk, workspace: str | None = None) -> ToolSpec:
    return next(spec for spec in desk.runner("anna", workspace).tools() if spec.name == SEND)


def reached(desk: Desk, workspace: str | None = None) -> list[str]:
    return [spec.name for spec in desk.runner("anna", workspace).reachable()]


async def test_the_tool_that_is_told_is_the_one_that_is_called(desk: Desk) -> None:
    """What is asked about is read from it: two workers may have different ones under a name."""
    desk.announce("anna", offering("a", foreign(read_only=True)))
    at_b = desk.announce("anna", offering("b", foreign(), "site"))
    running = asyncio.create_task(desk.runner("anna").run(call(SEND)))
    assert [one.name for one in await asked(at_b)] == [SEND]
    running.cancel()
    assert not found(desk).read_only
    desk.announce("anna", offering("a", foreign(read_only=True), "site"))  # now it may be either
    assert not found(desk).read_only
    assert found(desk, "a/site").read_only
    assert (await desk.runner("anna").run(call(SEND))).outcome is Outcome.REFUSED
    assert reached(desk) == []
    assert SEND in reached(desk, "a/site")


async def test_a_foreign_tool_is_called_where_it_is_without_a_workspace(desk: Desk) -> None:
    desk.announce("anna", announced("a", "a"))
    at_b = desk.announce("anna", offering("b", foreign(), "site"))
    assert reached(desk) == [SEND]
    running = asyncio.create_task(desk.runner("anna").run(call(SEND)))
    assert [one.name for one in await asked(at_b)] == [SEND]
    running.cancel()


async def test_nobody_elses_tool_is_reached_for_a_workspace_whose_worker_is_away(desk: Desk) -> None:
    desk.announce("anna", offering("desktop", foreign(), "site"))
    assert reached(desk, "laptop/site") == []
    assert SEND in reached(desk, "desktop/site")
