"""What a real model of 135M parameters did with the harness (`bench/run harness`), and what the harness makes of it."""

from __future__ import annotations

import pytest

from roost.agent.calls import is_call
from roost.agent.delegation import AgentRole
from roost.agent.models import Reply
from roost.agent.tool import Outcome
from roost.agent.turn import CUT_OFF, NO_WORDS, NOTHING_WENT_WELL
from tests.support.models import Files, ScriptedModels
from tests.unit.agent.loop.test_turn import Desk, actions

NONSENSE = actions(
    ("read", {"path": "a.txt.html"}), ("read", {"path": "a.txt.json"}), ("read", {"path": "a.txt.md"}),
    ("read", {"path": "a.txt.py"}), ("read", {"path": "a.txt.sh"}), ("read", {"path": "a.txt.txt"}),
)  # fmt: skip


def test_what_a_request_names_is_done_where_the_router_did_everything_else() -> None:
    desk = Desk(ScriptedModels(router=[NONSENSE], main=["It says alpha."]))
    metrics = desk.say("Read a.txt")
    assert desk.outcomes[-1] is Outcome.OK
    assert desk.files.calls[-1].arguments == {"path": "a.txt"}
    assert (metrics.finished, metrics.stop, metrics.missing) == (True, "", [])
    assert [role for role, _ in desk.models.asks] == ["router", "main"]


def test_what_words_name_is_not_tried_again_where_it_failed() -> None:
    desk = Desk(ScriptedModels(router=[actions(("read", {"path": "absent.txt"}))]))
    metrics = desk.say("Read absent.txt")
    assert [call.arguments for call in desk.files.calls] == [{"path": "absent.txt"}]
    assert not metrics.finished


CALL = 'Called read with {"path": "b"}'
DONE = actions(("read", {"path": "a.txt"}), ("list", {}))


def test_where_main_writes_a_call_it_is_asked_for_words_once() -> None:
    desk = Desk(ScriptedModels(router=[DONE], main=[CALL, "It says alpha."]))
    metrics = desk.say("Read a.txt")
    assert (desk.answer, metrics.finished) == ("It says alpha.", True)
    assert metrics.roles[AgentRole.MAIN].usage.prompt == 20
    assert "Read a.txt" in desk.models.asks[-1][1].messages[-1].text
    assert "Called read" not in "\n".join(turn.text() for turn in desk.keeper.conversation.turns)


def test_a_call_again_is_no_answer() -> None:
    desk = Desk(ScriptedModels(router=[DONE], main=[CALL, CALL]))
    metrics = desk.say("Read a.txt")
    assert not metrics.finished
    assert desk.answer == f"read returned:\nalpha\n\n[{NO_WORDS}]"
    assert {"type": "notice", "text": NO_WORDS} in desk.told


def test_an_answer_that_came_to_its_limit_says_so() -> None:
    desk = Desk(ScriptedModels(main=[Reply("Once upon a time", finish="length")]))
    metrics = desk.say("Tell me a story")
    assert (desk.answer, metrics.finished) == (f"Once upon a time\n\n[{CUT_OFF}]", False)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('Called read with {"path": "a"}', True),
        ("Called shell_exec()", True),
        ('<tool_call>{"name": "read", "arguments": {"path": "a"}}</tool_call>', True),
        ('```json\n{"tool": "read", "arguments": {}}\n```', True),
        ('{"name": "Ada", "age": 7}', False),
        ("Called by Ada, the meeting began at nine.", False),
        ('I used read with {"path": "a"} and it says alpha.', False),
        ("", False),
    ],
)
def test_what_is_nothing_but_a_call(text: str, *, call: bool) -> None:
    assert is_call(text) is call


def test_where_nothing_went_well_a_summary_of_success_is_not_believed() -> None:
    models = ScriptedModels(
        router=[actions(("read", {"path": "path.join({"}))], call=['{"done": true, "summary": "All is done."}'],
        main=["You have completed the task."],
    )  # fmt: skip
    desk = Desk(models)
    metrics = desk.say("What is the capital of France?")
    assert not metrics.finished
    assert desk.answer.endswith(f"[{NOTHING_WENT_WELL}]")
    assert "All is done." not in "\n".join(message.text for message in models.asks[-1][1].messages)


@pytest.mark.parametrize("text", ["Hello, how are you?", "Thanks, that was good.", "Good morning!", "hi there"])
def test_a_greeting_needs_no_decision(text: str) -> None:
    desk = Desk(ScriptedModels(main=["I am well."]))
    metrics = desk.say(text)
    assert [role for role, _ in desk.models.asks] == ["main"]
    assert metrics.preflight == "skipped: talk"
    assert metrics.finished


@pytest.mark.parametrize("text", ["Hello, read a.txt", "Thanks, now restart the server", "ok", "How are you built?"])
def test_what_is_more_than_a_greeting_is_decided(text: str) -> None:
    desk = Desk(ScriptedModels(), Files({"a.txt": "alpha"}))
    desk.say(text)
    assert desk.models.asks[0][0] == "router"
