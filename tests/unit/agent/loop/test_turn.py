"""A turn with scripted models: who is asked for what, what is recorded, and what ends when a model misbehaves."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import JsonValue

from roost.agent.delegation import delegate
from roost.agent.guards import Stop
from roost.agent.history import conversation_of
from roost.agent.sessions.records import Body, MessageBody, MetricsBody, Record, ToolCallBody, ToolResultBody, now
from roost.agent.tool import Outcome, ToolRunner
from roost.agent.turn import DID_NOT_END, MAIN_SYSTEM, Setting, take_turn
from roost.agent.turn_metrics import TurnMetrics
from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode, bounds
from roost.context.gate import Gate
from roost.context.keeper import Keeper, Slot
from roost.context.messages import Role
from roost.context.pack import Head, Packer
from roost.context.summarise import Extractive
from roost.context.tokens import Estimate
from roost.ops.errors import RoostError
from tests.support.models import Files, ScriptedModels, absent

CONTEXT = 8192


class Desk:
    """A session with scripted models, and all that was recorded and told."""

    def __init__(self, models: ScriptedModels, files: Files | None = None) -> None:
        self.models, self.files = models, files or Files({"a.txt": "alpha", "b.txt": "beta"})
        self.bodies: list[Body] = []
        self.told: list[dict[str, JsonValue]] = []
        self.injected: list[str] = []
        counter, blobs = Estimate(), MemoryBlobs()
        self._packer = Packer(bounds(CostMode.SMART, CONTEXT), Gate(blobs, "alice", counter))
        self.keeper = Keeper(
            owner="alice", slot=Slot(CONTEXT, counter), mode=lambda: CostMode.SMART, head=Head(MAIN_SYSTEM),
            blobs=blobs, summariser=Extractive(counter),
        )  # fmt: skip

    async def _record(self, *bodies: Body) -> None:
        self.bodies += bodies

    async def _emit(self, event: dict[str, JsonValue]) -> None:
        self.told.append(event)

    def _inject(self) -> list[str]:
        given, self.injected = self.injected, []
        return given

    async def take(self, text: str, runner: ToolRunner | None = None) -> TurnMetrics:
        """Take a turn with these files, or with other tools."""
        setting = Setting(
            session="s1", models=self.models, delegation=delegate(await self.models.candidates()),
            runner=runner or self.files, keeper=self.keeper, router_packer=self._packer,
            specialist_packer=self._packer, record=self._record, emit=self._emit, injected=self._inject,
        )  # fmt: skip
        return await take_turn(setting, text, f"t{len(self.bodies)}")

    def say(self, text: str) -> TurnMetrics:
        return asyncio.run(self.take(text))

    @property
    def answer(self) -> str:
        return next(b.text for b in reversed(self.bodies) if isinstance(b, MessageBody) and b.role == "assistant")

    @property
    def outcomes(self) -> list[Outcome]:
        return [body.result.outcome for body in self.bodies if isinstance(body, ToolResultBody)]


def actions(*calls: tuple[str, dict[str, JsonValue]]) -> str:
    return json.dumps({"actions": [{"tool": tool, "arguments": arguments} for tool, arguments in calls]})


def one(tool: str, **arguments: JsonValue) -> str:
    return json.dumps({"tool": tool, "arguments": arguments})


def test_talk_goes_to_main_alone_and_main_has_no_tools() -> None:
    desk = Desk(ScriptedModels(main=["Paris."]))
    metrics = desk.say("What is the capital of France?")
    assert desk.answer == "Paris."
    assert metrics.preflight == "skipped: nothing has to be done"
    assert [role for role, _ in desk.models.asks] == ["router", "main"]
    assert desk.models.asks[-1][1].schema is None
    assert "".join(str(e["text"]) for e in desk.told if e["type"] == "text") == "Paris."


def test_a_pipeline_is_one_decision_and_main_sees_what_came_of_it() -> None:
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "a.txt"}), ("read", {"path": "b.txt"}))]))
    metrics = desk.say("Compare a.txt and b.txt")
    assert (metrics.preflight, metrics.routed_by, metrics.run) == ("fired", "model", 2)
    assert [role for role, _ in desk.models.asks] == ["router", "main"]
    seen = "\n".join(message.text for message in desk.models.asks[-1][1].messages)
    assert "alpha" in seen
    assert "beta" in seen
    kinds = [body.kind for body in desk.bodies if body.kind != "event"]
    assert kinds == ["message", "tool_call", "tool_result", "tool_call", "tool_result", "message", "metrics"]


@pytest.mark.parametrize(
    ("text", "second", "asked"),
    [
        ("Read a.txt", ("forbidden", {}), ["router", "main"]),  # refused, and not needed
        ("Do it well", ("forbidden", {}), ["router", "thought", "call", "main"]),  # nobody can tell
        ("Read a.txt", ("read", {"path": "missing"}), ["router", "thought", "call", "main"]),  # tried, and failed
        ("Read a.txt and b.txt", ("forbidden", {}), ["router", "thought", "call", "call", "call", "call", "main"]),
    ],
)
def test_a_refused_action_that_was_not_needed_is_no_reason_to_go_on(
    text: str, second: tuple[str, dict[str, JsonValue]], asked: list[str]
) -> None:
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "a.txt"}), second)]))
    desk.say(text)
    assert [role for role, _ in desk.models.asks] == asked


def test_what_one_action_leaves_another_uses() -> None:
    first = {"tool": "read", "arguments": {"path": "a.txt"}, "save_as": "text"}
    second = {"tool": "write", "arguments": {"path": "c.txt", "content": "got {scratch.text}"}}
    desk = Desk(ScriptedModels(router=[json.dumps({"actions": [first, second]})]))
    desk.say("Copy a.txt to c.txt")
    assert desk.files.files["c.txt"] == "got alpha"


@pytest.mark.parametrize("router", [absent(), "no JSON", '{"actions": [{"tool": "remove", "arguments": {}}]}', "{}"])
def test_without_a_usable_router_words_decide(router: str | Exception) -> None:
    desk = Desk(ScriptedModels(router=[router]))
    metrics = desk.say("Read a.txt")
    assert (metrics.preflight, metrics.routed_by) == ("fired: read+path", "words")
    assert desk.outcomes == [Outcome.OK]


def test_the_specialist_fills_in_what_words_cannot_tell() -> None:
    desk = Desk(ScriptedModels(router=[absent()], call=['{"path": "d.txt", "content": "haiku"}', '{"done": true}']))
    desk.say("Write a haiku to d.txt")
    assert desk.files.files["d.txt"] == "haiku"


def test_a_call_in_text_or_in_thoughts_counts() -> None:
    text = '<think>I need it: {"name": "read", "arguments": {"path": "a.txt"}}</think>'
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "missing"}))], thought=[text]))
    desk.say("Read it")
    assert desk.outcomes == [Outcome.FAILED, Outcome.OK]


def test_a_malformed_call_is_corrected_beside_the_history() -> None:
    desk = Desk(
        ScriptedModels(
            router=[actions(("read", {"path": "missing"}))],
            call=["nonsense", '{"tool": "read", "arguments": {"file": "a.txt"}}', one("read", path="a.txt")],
        )
    )
    metrics = desk.say("Read it")
    assert metrics.malformed == 2
    assert desk.outcomes == [Outcome.FAILED, Outcome.OK]
    later = "\n".join(message.text for _, ask in desk.models.asks[-2:] for message in ask.messages)
    assert "nonsense" not in later
    assert "That was wrong" not in later


def test_the_same_call_is_answered_from_its_result_and_ends_the_work() -> None:
    desk = Desk(ScriptedModels(router=[absent()], call=lambda _ask: one("read", path="a.txt")))
    metrics = desk.say("Read a.txt")
    assert len(desk.files.calls) == 1
    assert metrics.stop in {Stop.BLOCKED.value, Stop.STUCK.value}
    assert metrics.blocked >= 1
    assert "ended early" in "\n".join(message.text for message in desk.models.asks[-1][1].messages)


def test_a_model_that_only_wants_what_is_not_allowed_is_ended() -> None:
    desk = Desk(ScriptedModels(router=[actions(("forbidden", {}))], call=lambda _ask: one("forbidden")))
    assert desk.say("Do it").stop == Stop.BLOCKED.value


def test_a_model_that_fails_in_ever_new_ways_is_ended() -> None:
    numbers = iter(range(1000))
    desk = Desk(ScriptedModels(router=[absent()], call=lambda _ask: one("read", path=f"no-{next(numbers)}")))
    metrics = desk.say("Read a missing.txt")
    assert metrics.stop == Stop.POLLUTED.value
    assert metrics.asked < 12


def test_an_answer_that_repeats_itself_is_ended_and_cut() -> None:
    desk = Desk(ScriptedModels(main=["Well. " + "I think so. " * 400]))
    desk.say("Hello")
    assert DID_NOT_END in desk.answer
    assert len(desk.answer) < 400


def test_thoughts_are_not_part_of_the_answer() -> None:
    desk = Desk(ScriptedModels(main=["<think>hm, France</think>Paris."]))
    desk.say("Capital?")
    assert desk.answer == "Paris."
    assert "".join(str(e["text"]) for e in desk.told if e["type"] == "text") == "Paris."
    assert all("hm, France" not in message.text for message in desk.keeper.conversation.turns[-1].messages)


def test_a_question_of_the_router_is_asked() -> None:
    desk = Desk(ScriptedModels(router=['{"question": "Which file?", "actions": []}']))
    desk.say("Read it")
    assert desk.answer == "Which file?"
    assert [role for role, _ in desk.models.asks] == ["router"]


def test_a_specialist_that_is_gone_leaves_what_was_done_to_main() -> None:
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "missing"}))], thought=[absent()]))
    desk.say("Read it")
    assert "could not go on" in "\n".join(message.text for message in desk.models.asks[-1][1].messages)
    assert desk.answer.startswith("Done.\n\n[The work ended early")


def test_a_main_that_is_gone_is_an_error_and_what_was_said_is_kept() -> None:
    desk = Desk(ScriptedModels(main=[absent()]))
    with pytest.raises(RoostError, match="not there"):
        desk.say("Hello")
    assert [body.text for body in desk.bodies if isinstance(body, MessageBody)] == ["Hello"]
    metrics = desk.bodies[-1]
    assert isinstance(metrics, MetricsBody)
    assert metrics.values["stop"] == "error"


def test_what_the_user_adds_meanwhile_is_put_before_the_specialist() -> None:
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "missing"}))]))
    desk.injected = ["Look at b.txt instead"]
    desk.say("Read it")
    thought = next(ask for role, ask in desk.models.asks if role == "thought")
    assert any("Look at b.txt instead" in message.text for message in thought.messages)


def test_the_session_gives_the_same_conversation_again() -> None:
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "a.txt"}))], main=["It says alpha.", "Yes."]))
    desk.say("Read a.txt")
    desk.say("Really?")
    records = [Record(seq=number, at=now(), body=body) for number, body in enumerate(desk.bodies, start=1)]
    again = conversation_of(records)
    assert [turn.messages for turn in again.turns] == [turn.messages for turn in desk.keeper.conversation.turns]
    roles = [message.role for message in again.turns[0].messages]
    assert roles == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]


def test_intent_is_on_record_before_a_call_and_its_outcome_after() -> None:
    desk = Desk(ScriptedModels(router=[actions(("write", {"path": "x", "content": "y"}))]))
    desk.say("Write it")
    calls = [index for index, body in enumerate(desk.bodies) if isinstance(body, ToolCallBody)]
    results = [index for index, body in enumerate(desk.bodies) if isinstance(body, ToolResultBody)]
    assert calls < results
