"""Counting and summarising over HTTP: what a server that misbehaves comes to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest

from roost.context.messages import system, user
from roost.context.summarise import ChatSummariser, SummariserError
from roost.context.tokens import ApiCounter, CountError, Estimate, Guarded


@asynccontextmanager
async def answering(answers: Sequence[bytes | None]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve raw answers, one a connection; None closes it unanswered. Yields the address and what was asked."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        asked.append(head + await reader.readexactly(length))
        answer = left.pop(0)
        if answer is not None:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def http(status: int, document: object) -> bytes:
    """Return a whole answer."""
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


async def test_a_count_is_the_servers_and_tells_the_context() -> None:
    async with (
        answering([http(200, {"tokens": 33, "context": 4096})]) as (url, asked),
        aiohttp.ClientSession() as session,
    ):
        counter = ApiCounter(url, session, "key", "m")
        assert await counter.prompt([system("A"), user("B")]) == 33
        assert counter.context == 4096
        assert b"POST /v1/count" in asked[0]
        assert b"Bearer key" in asked[0]


async def test_texts_are_counted_once() -> None:
    async with answering([http(200, {"tokens": 2})]) as (url, asked), aiohttp.ClientSession() as session:
        counter = ApiCounter(url, session, "key", "m")
        assert [await counter.text("Hi"), await counter.text("Hi"), await counter.text("")] == [2, 2, 0]
        assert len(asked) == 1


async def test_a_connection_that_was_closed_unread_is_tried_once_more() -> None:
    async with answering([None, http(200, {"tokens": 5})]) as (url, asked), aiohttp.ClientSession() as session:
        assert await ApiCounter(url, session, "key", "m").text("Hi") == 5
        assert len(asked) == 2


@pytest.mark.parametrize(
    "answers",
    [[None, None], [http(503, {"error": {"message": "it is loading"}})], [http(500, "x")], [http(200, {"count": 5})]],
)
async def test_what_cannot_be_counted_is_said(answers: list[bytes | None]) -> None:
    async with answering(answers) as (url, _), aiohttp.ClientSession() as session:
        with pytest.raises(CountError) as caught:
            await ApiCounter(url, session, "key", "m").text("Hi")
        assert caught.value.fix


async def test_notes_come_without_thoughts() -> None:
    said = {"choices": [{"message": {"content": "<think>so</think>The notes."}}]}
    async with answering([http(200, said)]) as (url, asked), aiohttp.ClientSession() as session:
        summariser = ChatSummariser(url, session, "key", "m", 2048)
        assert await summariser.summarise("user: Hi \ud800", 100) == "The notes."
        body = json.loads(asked[0].split(b"\r\n\r\n", 1)[1])
        assert body["max_tokens"] == 100
        assert "<conversation>" in body["messages"][1]["content"]


@pytest.mark.parametrize(
    "answers",
    [[None, None], [http(500, {})], [http(200, {})], [http(200, {"choices": [{"message": {"content": " "}}]})]],
)
async def test_a_summary_that_does_not_come_is_said(answers: list[bytes | None]) -> None:
    async with answering(answers) as (url, _), aiohttp.ClientSession() as session:
        with pytest.raises(SummariserError):
            await ChatSummariser(url, session, "key", "m", 2048).summarise("x", 10)


async def test_a_guess_that_was_low_is_not_made_again() -> None:
    estimate = Estimate(bytes_per_token=4)
    messages = [user("x" * 400)]
    guessed = await estimate.prompt(messages)
    estimate.learn(guessed, 2 * guessed)
    assert await estimate.prompt(messages) >= 2 * guessed - 10
    again = await estimate.prompt(messages)
    estimate.learn(again, again // 2)
    assert await estimate.prompt(messages) == again


async def test_where_the_server_cannot_count_it_is_guessed_and_known() -> None:
    refusal = http(501, {"error": {"message": "Not offered here: counting."}})
    async with answering([refusal, refusal, http(200, {"tokens": 3})]) as (url, _), aiohttp.ClientSession() as session:
        counter = Guarded(ApiCounter(url, session, "key", "m"))
        assert await counter.text("x" * 40) == Estimate().of("x" * 40)
        assert await counter.prompt([user("Hi")]) == await Estimate().prompt([user("Hi")])
        assert counter.guessed == 2
        assert await counter.text("Hi") == 3
        assert counter.guessed == 2
