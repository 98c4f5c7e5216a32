"""Models over the API: what a stream says, piece by piece, and what one that cannot be read ends with."""

from __future__ import annotations

import json
from collections.abc import Sequence

import aiohttp
import pytest
from aiohttp import web

from roost.agent.models import ApiModels, Ask, Reply, Usage
from roost.context.messages import Call, user
from roost.ops.errors import RoostError
from tests.support.web_server import serving

ASK = Ask("tiny", [user("Hi")], 64)
DONE = "data: [DONE]\n\n"


def chunk(**said: object) -> str:
    return f"data: {json.dumps(said)}\n\n"


def delta(**said: object) -> str:
    return chunk(model="tiny", choices=[{"index": 0, "delta": said, "finish_reason": None}])


async def asked(stream: str, heard: list[tuple[str, bool]] | None = None, go_on: Sequence[bool] = ()) -> Reply:
    """Ask a gateway that answers with this."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=stream, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    may = iter(go_on)

    async def hear(piece: str, thought: bool) -> bool:
        if heard is not None:
            heard.append((piece, thought))
        return next(may, True)

    async with serving(app) as url, aiohttp.ClientSession() as http:
        return await ApiModels(http, url, "k").ask(ASK, hear)


async def test_an_answer_comes_in_pieces_with_thoughts_calls_and_what_it_took() -> None:
    heard: list[tuple[str, bool]] = []
    first = {"index": 0, "id": "c1", "function": {"name": "re", "arguments": '{"a'}}
    rest = {"index": 0, "function": {"name": "ad", "arguments": '": 1}'}}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    stream = [
        delta(role="assistant", content=None),
        delta(reasoning_content="So. "),
        delta(content="He"),
        ": ping\n\n",
        delta(content="llo"),
        delta(tool_calls=[first]),
        delta(tool_calls=[rest]),
        chunk(model="tiny", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        chunk(choices=[], usage=usage, timings={"later": 1}),
        DONE,
    ]
    reply = await asked("".join(stream), heard)
    assert (reply.text, reply.reasoning, reply.finish, reply.model) == ("Hello", "So. ", "stop", "tiny")
    assert reply.calls == (Call(id="c1", name="read", arguments='{"a": 1}'),)
    assert reply.usage == Usage(7, 3, 5)
    assert heard == [("So. ", True), ("He", False), ("llo", False)]


async def test_whoever_hears_may_end_it() -> None:
    reply = await asked(delta(content="a") + delta(content="b") + delta(content="c") + DONE, go_on=[True, False])
    assert (reply.text, reply.finish) == ("ab", "ended")


@pytest.mark.parametrize(
    "odd",
    [
        "data: {\n\n",
        "data: 7\n\n",
        'data: {"choices": ["x"]}\n\n',
        'data: {"choices": [{"delta": "x"}]}\n\n',
        'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
        'data: {"choices": [{"delta": {"tool_calls": [{"function": "x"}]}}]}\n\n',
        'data: {"choices": [], "usage": {"prompt_tokens": "x"}}\n\n',
        f"data: {'x' * (1 << 20)}\n\n",
    ],
)
async def test_an_answer_that_cannot_be_read_is_the_models_fault_and_told(odd: str) -> None:
    with pytest.raises(RoostError, match="cannot be read") as told:
        await asked(delta(content="a") + odd + DONE)
    assert told.value.fix


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("", "broke off before its end"),
        (chunk(error={"message": "died"}), "broke off: died"),
        (chunk(error="died"), "broke off: died"),
    ],
)
async def test_an_answer_that_breaks_off_says_so(end: str, said: str) -> None:
    with pytest.raises(RoostError, match=said):
        await asked(delta(content="a") + end)


@pytest.mark.parametrize("listed", ["{}", "[]", '{"data": [{}]}', '{"data": ["x"]}', '{"data": 1}', "<html>"])
async def test_models_that_are_none_are_told(listed: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=listed, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    async with serving(app) as url, aiohttp.ClientSession() as http:
        with pytest.raises(RoostError):
            await ApiModels(http, url, "k").candidates()
