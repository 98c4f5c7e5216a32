"""What fits the context, what is refused with its numbers, and what is left out on request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.request.context_fit import (
    Size,
    cut_points,
    first_that_fits,
    prompt_budget,
    surely_fits,
    without_oldest,
)
from tests.support.fakes import FakeEngine, fake_engine
from tests.unit.gateway.test_surface import ask, gateway_of

CHAT = "/v1/chat/completions"
CUT = {"X-Roost-Context": "cut"}
roles = st.sampled_from(["system", "user", "assistant", "tool"])
conversations = st.lists(roles.map(lambda role: {"role": role, "content": "x"}), min_size=1, max_size=12)


def said(words: int, role: str = "user") -> dict[str, object]:
    return {"role": role, "content": "word " * words}


@given(st.integers(0, 5000), st.none() | st.integers(0, 5000), st.integers(1, 5000))
def test_what_fits_has_room_for_the_prompt_and_for_the_answer(prompt: int, answer: int | None, context: int) -> None:
    size = Size(prompt, answer, context)
    assert size.fits == (prompt + max(1, answer or 0) <= context)
    assert 1 <= context - prompt_budget(answer, context) <= max(1, context // 4)


def test_only_what_could_be_too_long_is_counted() -> None:
    assert surely_fits(b"x" * 1000, 500, 2048)
    assert not surely_fits(b"x" * 1000, 1000, 2048)
    assert not surely_fits(b"x" * 2048, None, 2048)
    assert not surely_fits(b'{"tools": []}', None, 2048)


@given(conversations)
def test_a_shortened_conversation_keeps_instructions_and_begins_with_the_user(
    messages: Sequence[Mapping[str, object]],
) -> None:
    for begin in cut_points(messages):
        kept = without_oldest(messages, begin)
        head = [message["role"] for message in kept if message["role"] == "system"]
        assert len(kept) < len(messages)
        assert kept[-1] is messages[-1]
        rest = list(messages[begin:])
        assert rest[0]["role"] == "user"
        assert kept[len(kept) - len(rest) :] == rest
        assert len(head) >= len(kept) - len(rest)


@given(st.lists(st.integers(0, 100), unique=True).map(sorted), st.integers(0, 100))
async def test_the_least_is_cut_that_helps(points: list[int], limit: int) -> None:
    async def fits(point: int) -> bool:
        return point >= limit

    assert await first_that_fits(points, fits) == next((point for point in points if point >= limit), None)


async def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(tmp_path: Path) -> None:
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, CHAT, {"messages": [said(3000)], "max_tokens": 10})
        error = got["error"]
        assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
        assert (error["context"], error["prompt_tokens"], error["answer_tokens"]) == (2048, 3000, 10)
        assert engine.chats == []  # the model server did not get it


async def test_an_answer_that_would_not_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, CHAT, {"messages": [said(48)], "max_completion_tokens": 2001})
        assert (status, got["error"]["param"]) == (400, "max_tokens")
        assert "up to 2000" in got["error"]["message"]
        status, _, headers = await ask(gateway, CHAT, {"messages": [said(48)], "max_completion_tokens": 2000})
        assert status == 200
        assert "x-roost-cut" not in headers


async def test_what_surely_fits_costs_no_further_question(tmp_path: Path) -> None:
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        assert (await ask(gateway, CHAT, {"messages": [said(10)], "max_tokens": 100}))[0] == 200
        assert engine.counted == []


async def test_a_server_that_cannot_count_gets_the_request_and_judges_itself(tmp_path: Path) -> None:
    async with fake_engine() as engine, gateway_of(tmp_path, engine) as gateway:
        assert (await ask(gateway, CHAT, {"messages": [said(3000)]}))[0] == 200
        assert len(engine.chats) == 1


async def test_on_request_the_oldest_turns_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    turns = [said(5, "system"), said(900), said(600, "assistant"), said(600), said(300, "assistant"), said(200)]
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        status, _, headers = await ask(gateway, CHAT, {"messages": turns, "max_tokens": 1000}, CUT)
        assert status == 200
        assert headers["x-roost-cut"] == "messages=2, max_tokens=1000->943"
        sent = engine.chats[-1]
        assert sent["messages"] == [turns[0], *turns[3:]]
        assert sent["max_tokens"] == 943


async def test_only_the_answer_is_shortened_where_that_is_enough(tmp_path: Path) -> None:
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        body = {"messages": [said(48)], "max_completion_tokens": 5000}
        status, _, headers = await ask(gateway, CHAT, body, CUT)
        assert (status, headers["x-roost-cut"]) == (200, "max_tokens=5000->2000")
        assert engine.chats[-1]["max_completion_tokens"] == 2000


async def test_one_message_that_is_too_long_is_refused_even_then(tmp_path: Path) -> None:
    async with fake_engine(counter=True) as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, CHAT, {"messages": [said(3000)]}, CUT)
        assert (status, got["error"]["code"]) == (400, "context_length_exceeded")
        assert engine.chats == []


async def test_another_policy_is_refused(tmp_path: Path) -> None:
    engine: FakeEngine
    async with fake_engine() as engine, gateway_of(tmp_path, engine) as gateway:
        status, got, _ = await ask(gateway, CHAT, {"messages": [said(1)]}, {"X-Roost-Context": "shift"})
        assert status == 400
        assert "shift" in json.dumps(got)
