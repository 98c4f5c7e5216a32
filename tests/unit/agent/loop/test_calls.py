"""Calls in every form that models write, and what of their arguments may be mended."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from roost.agent.calls import BadCallError, check, find_calls

READ: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "first_line": {"type": "integer"}, "all": {"type": "boolean"}},
    "required": ["path"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, JsonValue]] = {"read": READ, "list": {"type": "object", "properties": {}}}

FORMS = [
    ('<tool_call>{"name": "read", "arguments": {"path": "a"}}</tool_call>', "tool_call tags"),
    ('<tool_call>\n{"name": "read", "arguments": {"path": "a"}}', "tool_call tags"),
    ('<function=read>{"path": "a"}</function>', "function tags"),
    ("<function=read>\n<parameter=path>\na\n</parameter>\n</function>", "function tags"),
    ('[TOOL_CALLS] [{"name": "read", "arguments": {"path": "a"}}]', "mistral"),
    ('[TOOL_CALLS]read[ARGS]{"path": "a"}', "mistral named"),
    ('I will do it.\n```json\n{"tool": "read", "args": {"path": "a"}}\n```', "fenced json"),
    ('Sure: {"name": "read", "parameters": {"path": "a"}}', "bare json"),
    ('{"function": {"name": "read", "arguments": "{\\"path\\": \\"a\\"}"}}', "bare json"),
    ('{"action": "read", "action_input": {"path": "a",}}', "bare json"),
    ('[read(path="a")]', "pythonic"),
    ('<think>I call {"name": "read", "arguments": {"path": "a"}} now</think>', "thinking+bare json"),
    ('<think>hm</think>{"name": "read", "arguments": {"path": "a"}}', "bare json"),
]


@pytest.mark.parametrize(("text", "dialect"), FORMS)
def test_every_form_is_read(text: str, dialect: str) -> None:
    found = find_calls(text, SCHEMAS)
    assert [(one.name, one.arguments, one.dialect) for one in found] == [("read", {"path": "a"}, dialect)]


@pytest.mark.parametrize(
    "text",
    [
        "", "no call at all", '{"name": "remove", "arguments": {}}', '{"name": "read", "arguments": {}}', '{"a": 1}',
        "{" * 3000, '<tool_call>{"name": "read"', "read(**x)", "read(open('/etc/passwd'))", '{"name": 3}',
    ],
)  # fmt: skip
def test_what_is_no_call_of_ours_is_left_alone(text: str) -> None:
    assert find_calls(text, SCHEMAS) == []


def test_text_in_arguments_may_hold_anything() -> None:
    path = 'a "b" {c} \\ </tool_call> ```'
    text = json.dumps({"name": "read", "arguments": {"path": path}})
    assert find_calls(f"<tool_call>{text}</tool_call>", SCHEMAS)[0].arguments == {"path": path}


@pytest.mark.parametrize(
    ("arguments", "mended"),
    [
        ({"path": "a", "first_line": "3"}, {"path": "a", "first_line": 3}),
        ({"path": "a", "first_line": 3.0}, {"path": "a", "first_line": 3}),
        ({"path": "a", "all": "True"}, {"path": "a", "all": True}),
        ({"Path": "a", "firstLine": 2}, {"path": "a", "first_line": 2}),
        ({"path": 7}, {"path": "7"}),
        ('{"path": "a"}', {"path": "a"}),
    ],
)
def test_what_can_only_mean_one_thing_is_mended_and_said(arguments: object, mended: dict[str, object]) -> None:
    found = check("read", arguments, SCHEMAS, "x")
    assert found.arguments == mended
    assert found.repairs


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("remove", {}, "There is no tool 'remove'"),
        (None, {}, "There is no tool"),
        ("read", {}, "needs the argument 'path'"),
        ("read", {"path": "a", "mode": "w"}, "has no argument 'mode'"),
        ("read", {"path": None}, "has to be of type string"),
        ("read", {"path": "a", "first_line": "three"}, "has to be of type integer"),
        ("read", {"path": "a", "first_line": 1.5}, "has to be of type integer"),
        ("read", {"path": "a", "first_line": True}, "has to be of type integer"),
        ("read", ["a"], "have to be an object"),
        ("read", "path=a", "no JSON object"),
    ],
)
def test_what_could_mean_something_else_is_refused(name: object, arguments: object, said: str) -> None:
    with pytest.raises(BadCallError, match=said):
        check(name, arguments, SCHEMAS, "x")


@settings(max_examples=300)
@given(text=st.text(max_size=400) | st.text(alphabet='{}[]"\\:,<>/=()tool_callread path', max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for found in find_calls(text, SCHEMAS):
        assert found.name in SCHEMAS
