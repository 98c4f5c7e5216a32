"""Repair of conversations: whatever a history went through, a template gets what it can render."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.messages import Call, Message, Role, assistant, system, tool, user
from roost.context.repair import NO_RESULT, clean_text, repair, without_thinking

LENIENT = Capabilities()
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", " ", "\x00", "\ud800x", "<think>hm</think>yes", "<think>never ends", "so</think>yes", "[THINK]a[/THINK]b"]
)
IDS = st.sampled_from(["", "a", "b", "call_1", "123456789"])
CALLS = st.builds(
    Call,
    id=IDS,
    name=st.sampled_from(["read", "run", ""]),
    arguments=st.sampled_from(["{}", '{"path": "a"}', "", "{", "[1]", "null", '"x"', "1e999"]),
)
MESSAGES = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(Role),
        text=TEXTS,
        calls=st.lists(CALLS, max_size=3).map(tuple),
        call_id=IDS,
    ),
    max_size=12,
)
CAPABILITIES = st.builds(
    Capabilities,
    system=st.booleans(),
    late_system=st.booleans(),
    alternates=st.booleans(),
    tools=st.booleans(),
    many_calls=st.booleans(),
    call_id_length=st.sampled_from([0, 9]),
    text_with_calls=st.booleans(),
)


def said(messages: list[Message] | tuple[Message, ...]) -> list[str]:
    """Return what users said, as it may be in a prompt."""
    return [clean_text(m.text) for m in messages if m.role is Role.USER and m.text.strip()]


def problems(messages: tuple[Message, ...], can: Capabilities) -> list[str]:
    """Return what a template of these capabilities would not take."""
    found = [problem for message in messages for problem in of_message(message, can)]
    late = can.late_system and not can.alternates
    if any(m.role is Role.SYSTEM and (not can.system or (n and not late)) for n, m in enumerate(messages)):
        found.append("system")
    if next((m.role for m in messages if m.role is not Role.SYSTEM), None) is not Role.USER:
        found.append("no user first")
    if can.alternates:
        turns = [m.role for m in messages if m.role in {Role.USER, Role.ASSISTANT} and not m.calls]
        if any((role is Role.USER) != (turn % 2 == 0) for turn, role in enumerate(turns)):
            found.append("alternation")
    return found + of_results(messages)


def of_message(message: Message, can: Capabilities) -> list[str]:
    """Return what is wrong with one message alone."""
    length = can.call_id_length
    wrong = {
        "tools": not can.tools and (bool(message.calls) or message.role is Role.TOOL),
        "many calls": not can.many_calls and len(message.calls) > 1,
        "text with calls": not can.text_with_calls and bool(message.calls and message.text.strip()),
        "ids": any(length and (len(call.id) != length or not call.id.isalnum()) for call in message.calls),
        "arguments": not all(isinstance(json.loads(call.arguments), dict) for call in message.calls),
        "empty": not message.text.strip() and not message.calls,
    }
    return [name for name, is_so in wrong.items() if is_so]


def of_results(messages: tuple[Message, ...]) -> list[str]:
    """Return what is wrong between calls and results."""
    found = []
    waiting: list[str] = []
    ids: set[str] = set()
    for message in messages:
        if message.role is Role.TOOL:
            if message.call_id not in waiting:
                found.append("orphan")
            else:
                waiting.remove(message.call_id)
            continue
        if waiting:
            found.append("calls without results")
        new = [call.id for call in message.calls]
        if not all(new) or len(set(new)) < len(new) or ids & set(new):
            found.append("ids")
        ids |= set(new)
        waiting = new
    return [*found, "calls without results"] if waiting else found


@given(MESSAGES, CAPABILITIES)
def test_any_history_becomes_one_that_renders(messages: list[Message], can: Capabilities) -> None:
    assert problems(repair(messages, can).messages, can) == []


@given(MESSAGES, CAPABILITIES)
def test_nothing_a_user_said_is_lost_or_moved(messages: list[Message], can: Capabilities) -> None:
    everything = "\n".join(said(repair(messages, can).messages))
    at = 0
    for text in said(messages):
        at = everything.find(text, at)
        assert at >= 0, text
        at += len(text)


@given(MESSAGES, CAPABILITIES)
def test_repairing_twice_changes_nothing_more(messages: list[Message], can: Capabilities) -> None:
    once = repair(messages, can)
    again = repair(once.messages, can)
    assert again.messages == once.messages
    assert again.notes == ()


@given(MESSAGES)
def test_what_comes_out_can_be_sent(messages: list[Message]) -> None:
    for message in repair(messages, STRICTEST).messages:
        json.dumps(message.wire(), ensure_ascii=False).encode("utf-8")


def test_a_good_history_stays_as_it_is() -> None:
    good = (system("Be brief."), user("Hi"), assistant("", Call(id="a", name="read")), tool("a", "x"), assistant("x"))
    assert repair(good, LENIENT).messages == good
    assert repair(good, LENIENT).notes == ()


def test_an_interrupted_call_has_a_result_that_says_so() -> None:
    repaired = repair([user("Hi"), assistant("", Call(id="a", name="read")), user("And?")], LENIENT)
    assert [m.text for m in repaired.messages] == ["Hi", "", NO_RESULT, "And?"]
    assert repaired.notes == ("orphans",)


def test_a_system_message_goes_to_the_user_where_there_is_none() -> None:
    assert repair([system("Be brief."), user("Hi")], STRICTEST).messages == (user("Be brief.\n\nHi"),)


def test_malformed_arguments_are_kept_and_are_json() -> None:
    broken = assistant("", Call(id="a", name="read", arguments='{"path": "a'))
    call = repair([user("Hi"), broken], LENIENT).messages[1].calls[0]
    assert json.loads(call.arguments) == {"malformed": '{"path": "a'}


def test_thinking_is_taken_out_of_answers_only() -> None:
    assert without_thinking("<think>so</think>\nyes") == "yes"
    assert without_thinking("so</think>yes") == "yes"
    assert without_thinking("yes <think>and on") == "yes"
    assert without_thinking("a < b") == "a < b"
    question = user("What does <think> mean?")
    assert repair([question], LENIENT).messages == (question,)
