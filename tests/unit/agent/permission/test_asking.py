"""A turn that asks before a tool runs: allowed, refused, too late, stopped, killed, and where nobody can answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from roost.agent.guards import Budget, Stop
from roost.agent.live import Live, Said
from roost.agent.permission.asking import AskingRunner, QuestionNotFoundError
from roost.agent.permission.policy import Answer
from roost.agent.router import Routed
from roost.agent.service import Agents, Asker
from roost.agent.sessions.store import SessionNotFoundError
from roost.agent.specialist import Specialist
from roost.agent.tool import Outcome, ToolCall
from tests.support.models import ScriptedModels
from tests.support.net import eventually
from tests.unit.agent.loop.test_helpers import Web, means
from tests.unit.agent.permission.world import ANNA, SHELL, Hands, audited, events, foreign, hub, outcomes, until

SAID = Said("Send hi to all of them", answers=True)


async def begun(agents: Agents, said: Said = SAID, session: str = "") -> tuple[str, Live, asyncio.Queue[Any]]:
    session = session or agents.store.create("alice").id
    live = await agents.live(ANNA, session)
    queue = live.watch()
    await queue.get()
    await agents.say(ANNA, session, said)
    return session, live, queue


async def test_a_call_waits_for_a_yes_which_is_kept_with_who_said_it(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, _, queue = await begun(agents)
        question = await until(queue, "question")
        assert (question["tool"], question["arguments"]) == ("mcp__ex__send", {"text": "hi"})
        assert "another's server" in question["text"]
        assert [one.id for one in await agents.asked(ANNA, session)] == [question["id"]]
        assert hands.calls == []
        await agents.answer(ANNA, session, question["id"], Answer.YES)
        answered = await until(queue, "question.answered")
        assert (answered["answer"], answered["by"]) == ("yes", "alice")
        metrics = await until(queue, "metrics")
        assert metrics["questions"] == {"asked": 1, "allowed": 1}
        await until(queue, "idle")
        assert [call.allowed for call in hands.calls] == [True]
        assert [outcome for outcome, _ in outcomes(agents, session)] == [Outcome.OK]
        assert await agents.asked(ANNA, session) == []
        with pytest.raises(QuestionNotFoundError):
            await agents.answer(ANNA, session, question["id"], Answer.NO)
        _, _, queue = await begun(agents, session=session)  # the next one is asked about again
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], Answer.NO)
        await until(queue, "idle")
        assert len(hands.calls) == 1
        assert "said no" in outcomes(agents, session)[-1][1]
    found = [(action, detail["answer"], detail["by"]) for action, detail in audited(tmp_path) if "answer" in detail]
    assert found == [("tool.answered", "yes", "alice"), ("tool.answered", "no", "alice")]


@pytest.mark.parametrize(("answer", "elsewhere"), [(Answer.CONVERSATION, True), (Answer.ALWAYS, False)])
async def test_what_is_allowed_for_longer_is_not_asked_about_again(
    tmp_path: Path, answer: Answer, *, elsewhere: bool
) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, _, queue = await begun(agents)
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], answer)
        await until(queue, "idle")
    async with hub(tmp_path, hands) as agents:  # by another process
        _, live, queue = await begun(agents, session=session)
        await until(queue, "idle")
        assert len(hands.calls) == 2
        other, _, queue = await begun(agents)  # in another conversation
        first = await until(queue, "question") if elsewhere else await until(queue, "idle")
        assert (first["type"] == "question") is elsewhere
        assert len(hands.calls) == (2 if elsewhere else 3)
        del live, other
        hands.specs[0] = foreign(about="Sends all your files.")
        _, _, queue = await begun(agents)
        assert (await until(queue, "question"))["tool"] == "mcp__ex__send"
    assert ("tool.allowed" in [action for action, _ in audited(tmp_path)]) is True


async def test_an_always_that_cannot_be_kept_is_a_yes_and_is_told(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        (tmp_path / "allowed.json").mkdir()  # cannot be read, nor written over
        session, _, queue = await begun(agents)
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], Answer.ALWAYS)
        assert "this once only" in (await until(queue, "notice"))["text"]
        await until(queue, "idle")
        assert len(hands.calls) == 1
        _, _, queue = await begun(agents, session=session)
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], Answer.NO)
        await until(queue, "idle")
        assert len(hands.calls) == 1


async def test_nobody_who_cannot_answer_is_asked_and_is_told_what_to_set(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, _, queue = await begun(agents, Said("Send hi to all"))
        await until(queue, "idle")
        assert (hands.calls, events(agents, session, "question")) == ([], [])
        outcome, text = outcomes(agents, session)[0]
        assert outcome is Outcome.REFUSED
        assert "--allow mcp__ex__send" in text
        _, _, queue = await begun(agents, Said("Send hi to all", allow=("mcp__ex__send",)), session)
        await until(queue, "idle")
        assert len(hands.calls) == 1
        _, _, queue = await begun(agents, Said("Send hi to all"), session)  # it was allowed for that request only
        await until(queue, "idle")
        assert len(hands.calls) == 1


async def test_a_model_that_wants_again_what_was_not_allowed_asks_nobody_again(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, live, queue = await begun(agents)
        asking = (await agents._opened(ANNA, session)).asking
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], Answer.NO)
        await until(queue, "idle")
        call = ToolCall(id="again", name="mcp__ex__send", arguments={"text": "hi"}, session=session)
        assert "said no" in (await AskingRunner(hands, asking, live.turn).run(call)).text
        assert (len(events(agents, session, "question")), hands.calls) == (1, [])
        _, _, queue = await begun(agents, session=session)  # another turn
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], Answer.YES)
        await until(queue, "idle")
        assert len(hands.calls) == 1


async def test_a_tool_that_is_not_there_just_then_is_not_called(tmp_path: Path) -> None:
    hands = Hands(SHELL)
    async with hub(tmp_path, hands) as agents:
        session, live, _ = await begun(agents)
        asking = (await agents._opened(ANNA, session)).asking
        call = ToolCall(id="c", name="mcp__ex__send", arguments={"text": "hi"}, session=session)
        assert (await AskingRunner(hands, asking, live.turn).run(call)).outcome is Outcome.REFUSED
        assert hands.calls == []


async def test_a_yes_to_a_tool_that_became_another_meanwhile_calls_nothing(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, _, queue = await begun(agents)
        question = await until(queue, "question")
        hands.specs = [foreign(about="Deletes the account.")]
        await agents.answer(ANNA, session, question["id"], Answer.YES)
        await until(queue, "tool_result")
        assert outcomes(agents, session)[0][0] is Outcome.REFUSED
        assert hands.calls == []


async def test_no_answer_counts_as_no(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session = agents.store.create("alice").id
        opened = await agents._opened(ANNA, session)
        opened.asking.within_s = 0.05
        _, _, queue = await begun(agents, session=session)
        assert (await until(queue, "question.answered"))["answer"] == "unanswered"
        assert (await until(queue, "metrics"))["questions"] == {"asked": 1, "refused": 1}
        await until(queue, "idle")
        assert hands.calls == []
        assert "counts as no" in outcomes(agents, session)[0][1]
        assert list((tmp_path / "questions").iterdir()) == []


async def test_the_end_of_the_turn_ends_what_its_helpers_ask(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, live, queue = await begun(agents)
        first = await until(queue, "question")
        asking = (await agents._opened(ANNA, session)).asking
        call = ToolCall(id="helper", name="mcp__ex__send", arguments={"text": "ho"}, session=session)
        helper = asyncio.create_task(AskingRunner(hands, asking, live.turn).run(call))
        second = await until(queue, "question")
        await agents.answer(ANNA, session, first["id"], Answer.YES)
        result = await asyncio.wait_for(helper, 20)
        assert (result.outcome, [one.id for one in hands.calls if one.id == "helper"]) == (Outcome.REFUSED, [])
        assert "before the turn was over" in result.text
        assert await agents.asked(ANNA, session) == []
        assert events(agents, session, "question.answered")[-1]["answer"] == "stopped"
        with pytest.raises(QuestionNotFoundError):
            await agents.answer(ANNA, session, second["id"], Answer.YES)


async def test_what_is_allowed_for_a_request_is_not_for_a_helper_of_the_one_before(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands, ("shell", {"command": "rm -rf ."})) as agents:
        session, live, queue = await begun(agents, Said("Clean up"))
        await until(queue, "idle")
        before = live.turn
        allowing = Said("Clean up and send", answers=True, allow=("mcp__ex__send",))
        _, _, queue = await begun(agents, allowing, session)
        await until(queue, "question")  # the turn is under way
        asking = (await agents._opened(ANNA, session)).asking
        call = ToolCall(id="h", name="mcp__ex__send", arguments={"text": "ho"}, session=session)
        late = await AskingRunner(hands, asking, before).run(call)
        assert (late.outcome, hands.calls) == (Outcome.REFUSED, [])
        assert len(await agents.asked(ANNA, session)) == 1  # nor is anybody asked
        assert (await AskingRunner(hands, asking, live.turn).run(call)).outcome is Outcome.OK
        await live.cancel()


async def test_stopping_the_turn_ends_the_question(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, live, queue = await begun(agents)
        question = await until(queue, "question")
        assert await live.cancel()
        assert (await until(queue, "question.answered"))["answer"] == "stopped"
        assert hands.calls == []
        with pytest.raises(QuestionNotFoundError):
            await agents.answer(ANNA, session, question["id"], Answer.YES)
        assert list((tmp_path / "questions").iterdir()) == []


async def test_a_question_of_a_process_that_was_killed_is_settled_and_nothing_runs(tmp_path: Path) -> None:
    hands = Hands()
    async with hub(tmp_path, hands) as agents:
        session, _, queue = await begun(agents)
        await until(queue, "question")
        left = next((tmp_path / "questions").iterdir())
        kept = left.read_bytes()
        await agents.close()
    left.write_bytes(kept)  # as a process leaves it that has no time to end
    (left.parent / "broken.json").write_text("{")
    async with hub(tmp_path, hands) as agents:
        agents.settle()
        assert list(left.parent.iterdir()) == []
        assert events(agents, session, "question.answered")[-1]["answer"] == "unanswered"
        outcome, text = outcomes(agents, session)[-1]
        assert (outcome, hands.calls) == (Outcome.REFUSED, [])
        assert "started anew" in text


async def test_the_time_for_an_answer_is_counted(tmp_path: Path) -> None:
    async with hub(tmp_path, Hands()) as agents:
        session = agents.store.create("alice").id
        opened = await agents._opened(ANNA, session)
        opened.asking.clock = iter((10.0, 1010.0)).__next__
        _, _, queue = await begun(agents, session=session)
        await agents.answer(ANNA, session, (await until(queue, "question"))["id"], Answer.YES)
        await until(queue, "idle")
        assert opened.asking.waited_s == 1000


@pytest.mark.parametrize(("waited_s", "stop"), [(1000.0, None), (0.0, Stop.TIME)])
async def test_it_is_no_time_of_the_work(waited_s: float, stop: Stop | None) -> None:
    waited = iter((0.0, waited_s, waited_s))
    made = means(ScriptedModels(), Web())
    budget = Budget(seconds=-1.0)  # it is over before it begins
    specialist = Specialist(
        made.models, made.player, made.runner, made.tell, "s", budget=budget, waited_s=lambda: next(waited)
    )
    assert (await specialist.work("Look", Routed(by="words"), made.packer, "t")).stop is stop


async def test_another_key_neither_sees_nor_answers(tmp_path: Path) -> None:
    async with hub(tmp_path, Hands()) as agents:
        session, live, queue = await begun(agents)
        question = await until(queue, "question")
        bert = Asker("bert", "other", "user")
        with pytest.raises(SessionNotFoundError):
            await agents.answer(bert, session, question["id"], Answer.YES)
        await live.cancel()
        await eventually(lambda: not live.busy, 5, "the end")
