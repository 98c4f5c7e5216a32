"""What makes an answer not good enough: tables of answers of each protocol, and properties of the schema check."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.choice.schema_check import fits
from roost.gateway.choice.verdict import TAIL_CHARS, Objection, objection, repeats, wanted_of
from roost.gateway.request.kinds import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Kind

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]}
MUST = {**TOOLS, "tool_choice": "required"}
LOOP = "and then we went home, " * 20


def said(text: str | None, finish: str = "stop", **more: object) -> dict[str, object]:
    """Return a chat's answer."""
    return {"choices": [{"message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}]}


def called(name: str, arguments: str) -> dict[str, object]:
    """Return a chat's answer that calls a tool."""
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return said(None, "tool_calls", tool_calls=[call])


def verdict(kind: Kind, request: dict[str, object], answer: object, limit: int | None = None) -> str:
    """Return what is wrong with an answer, or nothing."""
    found = objection(kind, wanted_of(json.dumps(request).encode(), limit), json.dumps(answer).encode())
    return found.value if found else ""


@pytest.mark.parametrize(
    ("request_", "answer", "wrong"),
    [
        ({}, said("Paris."), ""),
        ({}, said(""), "empty"),
        ({}, said(None), "empty"),
        ({}, said(" \n", reasoning_content="Let me think"), "empty"),
        ({}, said("Once upon", "length"), "length"),
        ({}, said(LOOP), "repetition"),
        ({}, said("I'm sorry, but I can't help with that."), "refusal"),
        ({}, said("As an AI language model, I have no opinion."), "refusal"),
        ({}, said("Es tut mir leid, aber ich kann das nicht."), "refusal"),
        ({}, said("I cannot help but laugh at this."), "refusal"),  # a price of looking at words only
        ({}, said("Sorry, I canoed all day."), "refusal"),
        ({}, said("I'm sorry to hear that. " + "Here is what you can do about it. " * 2), ""),
        (FORMAT, said('{"n": 3}'), ""),
        (FORMAT, said('{"n": "3"}'), "schema"),
        (FORMAT, said('{"n": 3'), "schema"),
        (FORMAT, said('{"n": 3, "m": 4}'), "schema"),
        ({"response_format": {"type": "json_object"}}, said("no json"), "schema"),
        ({"json_schema": SCHEMA}, said('{"n": 1.5}'), "schema"),
        (TOOLS, called("weather", '{"city": "Oslo"}'), ""),
        (TOOLS, called("weather", '{"city": 7}'), "tool-call"),
        (TOOLS, called("weather", '{"city": '), "tool-call"),
        (TOOLS, called("weather", '"Oslo"'), "tool-call"),
        (TOOLS, called("other", "{}"), "tool-call"),
        (TOOLS, said('<tool_call>{"name": "weather"}'), "tool-call"),
        (TOOLS, said("It is sunny."), ""),
        (MUST, said("It is sunny."), "tool-call"),
        ({}, {"choices": [said("x")["choices"][0], said("")["choices"][0]]}, ""),  # type: ignore[index]
        ({}, {"choices": []}, ""),
        ({}, {"error": 1}, ""),
        ({}, [], ""),
    ],
)
def test_answers_of_chats(request_: dict[str, object], answer: object, wrong: str) -> None:
    assert verdict(CHAT, request_, answer) == wrong


def test_an_answer_that_was_to_be_short_may_be_cut() -> None:
    assert verdict(CHAT, {}, said("Once upon", "length"), limit=2) == ""
    assert verdict(CHAT, {}, said("", "length"), limit=2) == "empty"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (COMPLETIONS, {"choices": [{"text": "x"}]}, {"choices": [{"text": ""}]}),
        (MESSAGES, {"content": [{"type": "text", "text": "x"}]}, {"content": []}),
        (RESPONSES, {"output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]},
         {"output": [{"type": "reasoning", "content": [{"type": "text", "text": "x"}]}]}),
    ],
)  # fmt: skip
def test_answers_of_the_other_protocols(kind: Kind, good: object, bad: object) -> None:
    assert verdict(kind, {}, good) == ""
    assert verdict(kind, {}, bad) == "empty"


def test_tools_of_the_other_protocols() -> None:
    tools: dict[str, object] = {"tools": [{"name": "weather", "input_schema": PARAMETERS}]}
    use = {"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}
    assert verdict(MESSAGES, tools, {"content": [use]}) == ""
    assert verdict(MESSAGES, tools, {"content": [{**use, "input": {}}]}) == "tool-call"
    tools = {"tools": [{"type": "function", "name": "weather", "parameters": PARAMETERS}]}
    call = {"type": "function_call", "name": "weather", "arguments": '{"city": "Oslo"}'}
    assert verdict(RESPONSES, tools, {"output": [call]}) == ""
    assert verdict(RESPONSES, tools, {"output": [{**call, "arguments": "{}"}]}) == "tool-call"


def test_a_table_is_no_repetition() -> None:
    assert not repeats("-" * 500)
    assert not repeats("| 1 | 2 |\n" * 50)
    assert repeats("the end. " * 60)
    assert not repeats("the end. " * 5)


@given(st.text(alphabet="abcdefgh ", min_size=3, max_size=60))
def test_whatever_is_repeated_is_found(words: str) -> None:
    enough = len({c for c in words if c.isalpha()}) >= 3
    assert repeats(words * (TAIL_CHARS // len(words) + 1)) or not enough


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, JSON)
def test_no_schema_is_too_strange(value: object, schema: object) -> None:
    assert fits(value, schema) in (True, False)
    assert fits(value, {})
    assert not fits(value, False)


@pytest.mark.parametrize(
    ("value", "schema", "fine"),
    [
        (True, {"type": "integer"}, False),
        (2.0, {"type": "integer"}, True),
        (2, {"type": ["string", "number"]}, True),
        (None, {"type": ["string", "null"]}, True),
        ("x", {"enum": ["x", "y"]}, True),
        ("z", {"enum": ["x", "y"]}, False),
        (1, {"const": 2}, False),
        ([1, "a"], {"items": {"type": "integer"}}, False),
        ({"a": 1}, {"anyOf": [{"required": ["b"]}, {"required": ["a"]}]}, True),
        ({"a": 1}, {"allOf": [{"required": ["b"]}, {"required": ["a"]}]}, False),
        ({"a": 1}, {"type": "something new"}, True),
        ({"a": 1}, {"$ref": "#/unknown"}, True),
        ({"a": 1}, {"additionalProperties": False, "patternProperties": {"a": {}}}, True),
    ],
)
def test_what_a_schema_asks_for(value: object, schema: object, fine: bool) -> None:
    assert fits(value, schema) is fine


def test_the_words_are_those_that_are_documented() -> None:
    assert {one.value for one in Objection} == {"empty", "length", "schema", "tool-call", "repetition", "refusal"}
