"""What is seen of a request, and how hard it counts."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.choice.complexity import HEAVY_FROM, STANDARD_FROM, Level, score
from roost.gateway.choice.features import ENOUGH_CHARS, Asked, Features, read_request
from roost.gateway.request.kinds import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Kind

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def seen(kind: Kind, body: dict[str, object], answer: int | None = None) -> Asked:
    """Look at a body."""
    return read_request(kind, json.dumps(body).encode(), answer)


def said(text: object, **more: object) -> Asked:
    """Look at a chat of one turn."""
    return seen(CHAT, {"messages": [{"role": "user", "content": text}], **more})


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CHAT, {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}]}),
        (MESSAGES, {"system": "Be kind.", "messages": [{"role": "user", "content": "Hi?"}]}),
        (COMPLETIONS, {"prompt": "Hi?"}),
        (RESPONSES, {"input": "Hi?"}),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi?"}]}]}),
    ],
)
def test_every_kind_of_request_says_what_is_asked(kind: Kind, body: dict[str, object]) -> None:
    asked = seen(kind, body)
    assert asked.text == "Hi?"
    assert (asked.features.turns, asked.features.questions, asked.features.chars) == (1, 1, 3)


def test_a_short_turn_is_read_with_those_before_it() -> None:
    long = "Explain the borrow checker. " * 10
    turns = [("user", "Old and far away."), ("user", long), ("assistant", "It…"), ("user", "And in one sentence?")]
    asked = seen(CHAT, {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert asked.text == f"{long}\nAnd in one sentence?"
    assert len(long) >= ENOUGH_CHARS
    assert asked.features.turns == 3


def test_images_are_counted_wherever_they_are() -> None:
    inner = {"type": "tool_result", "content": [{"type": "image", "source": {}}]}
    parts = [{"type": "text", "text": "What is this?"}, PICTURE, inner]
    assert said(parts).features.images == 2
    assert seen(RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}).features.images == 1


def test_what_else_is_asked_for_is_seen() -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    schema = {"type": "json_schema", "json_schema": {"schema": {}}}
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [tool], "response_format": schema}
    features = seen(CHAT, {**body, "reasoning_effort": "high"}, 9000).features
    assert (features.tools, features.schema, features.answer_tokens, features.effort) == (1, True, 9000, "high")
    assert said("x", tools=[tool], tool_choice="none").features.tools == 0
    assert said("x", reasoning_effort={"no": "word"}).features.effort == ""
    assert seen(RESPONSES, {"input": "x", "text": {"format": {"type": "json_schema"}}}).features.schema
    assert seen(RESPONSES, {"input": "x", "reasoning": {"effort": "low"}}).features.effort == "low"


DESIGNS = "1. one queue\n2. a queue a key\n3. no queue\n4. a ring"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("Hi", Level.LIGHT),
        ("What is the capital of France?", Level.LIGHT),
        ("Danke, und wie spät ist es in Tokio?", Level.LIGHT),
        ("Why does this fail?\n```python\nfor x in 3:\n    print(x)\n```", Level.STANDARD),
        ("Compare two phones for me.", Level.STANDARD),
        ("Write about the sea. " * 70, Level.STANDARD),
        (f"Analyse the trade-offs of these designs and justify your choice step by step:\n{DESIGNS}", Level.HEAVY),
        (f"Vergleiche die Entwürfe, begründe Schritt für Schritt:\n{DESIGNS}\nWarum? Wie? Wann?", Level.HEAVY),
        ("证明并逐步分析: ∑ x = 1, √2 ≠ 1, 3 + 4 = 7, 2 * 2 = 4\n" + "x" * 250, Level.HEAVY),
    ],
)
def test_how_hard_requests_are(text: str, level: Level) -> None:
    found = score(said(text).features)
    assert found.level is level, found


def test_what_the_client_says_of_effort_counts() -> None:
    hard = said("Compare two phones for me.", reasoning_effort="high")
    assert score(hard.features).level is Level.HEAVY
    assert score(said("Compare two phones.", reasoning_effort="minimal").features).level is Level.LIGHT


FEATURES = st.builds(
    Features,
    **{f.name: st.integers(0, 50_000) for f in fields(Features) if f.name not in ("schema", "effort")},
    schema=st.booleans(),
    effort=st.sampled_from(["", "low", "high"]),
)
COUNTS = [f.name for f in fields(Features) if f.name not in ("schema", "effort")]


@given(FEATURES, st.sampled_from(COUNTS), st.integers(0, 10_000))
def test_more_of_anything_never_makes_a_request_easier(features: Features, name: str, more: int) -> None:
    harder = replace(features, **{name: getattr(features, name) + more})
    assert score(harder).points >= score(features).points


@given(FEATURES)
def test_the_level_is_what_the_points_say(features: Features) -> None:
    found = score(features)
    assert found == score(features)
    assert found.points >= 0
    assert (found.level is Level.HEAVY) == (found.points >= HEAVY_FROM)
    assert (found.level is Level.LIGHT) == (found.points < STANDARD_FROM)
    assert all(found.parts.values())


NAMES = st.sampled_from(["role", "content", "type", "text", "format"])
LEAF = st.none() | st.booleans() | st.integers() | st.text()
ANYTHING = st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner))


@given(ANYTHING)
def test_no_document_is_too_strange(value: object) -> None:
    for kind in (CHAT, COMPLETIONS, RESPONSES, MESSAGES):
        body = json.dumps({kind.prompt_field: value, "tools": value, "text": value, "reasoning": value}).encode()
        assert score(read_request(kind, body).features).points >= 0
