"""After repair a conversation renders with the template of any family, with all that the user said, in order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.discover import SCHEMA, discover
from roost.context.messages import Call, Message, Role, assistant, tool, user
from roost.context.repair import clean_text, repair
from roost.context.tokens import CountError
from tests.unit.context.templates import FAMILIES, JinjaTemplate
from tests.unit.context.test_repair import MESSAGES, problems

TEMPLATES = {name: JinjaTemplate(text) for name, text in FAMILIES.items()}
CAN = {name: asyncio.run(discover(template)) for name, template in TEMPLATES.items()}


@pytest.mark.parametrize("family", FAMILIES)
@given(messages=MESSAGES, tools=st.booleans())
def test_any_history_renders_whole_after_repair(family: str, messages: list[Message], tools: bool) -> None:
    can = CAN[family]
    repaired = repair(messages, can).messages
    assert problems(repaired, can) == []
    prompt = TEMPLATES[family].render(repaired, (SCHEMA,) if tools else ())
    at = 0
    for message in messages:
        if message.role is Role.USER and message.text.strip():
            text = clean_text(message.text).strip()
            at = prompt.find(text, at)
            assert at >= 0, f"{text!r} is not in the prompt, or not where it belongs"
            at += len(text)


@pytest.mark.parametrize("family", FAMILIES)
@given(messages=MESSAGES)
def test_the_strictest_capabilities_serve_every_family(family: str, messages: list[Message]) -> None:
    TEMPLATES[family].render(repair(messages, STRICTEST).messages)


@pytest.mark.parametrize("family", FAMILIES)
def test_results_calls_and_what_is_said_beside_them_reach_the_model(family: str) -> None:
    said = [
        user("ask"),
        assistant(
            "beside", Call(id="x", name="reader", arguments='{"path": "argument1"}'), Call(id="y", name="reader")
        ),
        tool("x", "result1"),
        tool("y", "result2"),
    ]
    prompt = TEMPLATES[family].render(repair(said, CAN[family]).messages)
    places = [prompt.find(word) for word in ("ask", "beside", "argument1", "result1", "result2")]
    assert min(places) >= 0, places
    assert prompt.count("reader") >= 2


def test_what_the_families_can_is_found_by_counting() -> None:
    assert CAN["chatml"] == Capabilities(tools=False, many_calls=False, text_with_calls=False)
    assert CAN["qwen 3"] == Capabilities()
    assert not CAN["qwen 3.5"].late_system
    assert CAN["llama 3.2"] == Capabilities(many_calls=False, text_with_calls=False)
    assert CAN["gemma 2"] == STRICTEST
    assert CAN["gemma 3"].system
    nemo = CAN["mistral nemo"]
    assert (nemo.alternates, nemo.tools, nemo.call_id_length, nemo.late_system) == (True, True, 9, False)
    assert not CAN["phi 3.5"].tools
    assert not CAN["phi 4 mini"].late_system
    assert not CAN["granite 3.3"].tools, "it drops calls in silence"
    assert not CAN["deepseek r1 distill"].late_system, "only the last one is shown"


@pytest.mark.parametrize(
    ("family", "history"),
    [
        ("gemma 2", [user("a"), user("b")]),
        ("mistral nemo", [user("a"), assistant("", Call(id="x", name="read")), tool("x", "r")]),
        ("llama 3.2", [user("a"), assistant("", Call(id="x", name="r"), Call(id="y", name="r"))]),
        ("qwen 3.5", [assistant("a")]),
    ],
)
def test_without_repair_the_templates_raise(family: str, history: list[Message]) -> None:
    with pytest.raises((jinja2.TemplateError, TypeError)):
        TEMPLATES[family].render(history)
    TEMPLATES[family].render(repair(history, CAN[family]).messages)


async def test_what_cannot_be_counted_with_is_taken_for_the_strictest() -> None:
    assert await discover(JinjaTemplate("{{ raise_exception('no') }}")) == STRICTEST


async def test_a_model_that_goes_away_is_no_strict_template() -> None:
    class Gone(JinjaTemplate):
        async def prompt(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> int:
            if len(messages) > 2:
                raise CountError("It is gone.")
            return await super().prompt(messages, tools)

    with pytest.raises(CountError, match="gone"):
        await discover(Gone(FAMILIES["chatml"]))


def test_no_template_of_a_family_is_a_copy() -> None:
    assert all(not re.search(r"Cutting Knowledge|Default Preamble|You are Granite", text) for text in FAMILIES.values())
