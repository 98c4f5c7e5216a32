"""What a client gets when the service ends before its answer does."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from roost.gateway.draining import Drain

STREAM_BEGINS: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]},
    {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True},
]
PLAIN_BEGINS: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]},
    {"type": "http.response.body", "body": b"{", "more_body": True},
]


class Story:
    """An application that sends some messages and then waits for ever; `counted` once it was ended."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.sent: list[Message] = []
        self.counted = False
        self.counted_first = False

    async def app(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            for message in self.messages:
                await send(message)
            await asyncio.Event().wait()
        finally:
            self.counted = True

    async def send(self, message: Message) -> None:
        self.counted_first = self.counted
        self.sent.append(message)

    async def cut(self, path: str) -> asyncio.Task[None]:
        """Run it, cut it, and return its task, which is over."""
        drain = Drain(self.app)
        scope: Scope = {"type": "http", "path": path, "method": "POST", "headers": []}
        task = asyncio.ensure_future(_call(drain, scope, self.send))
        await asyncio.sleep(0)
        assert len(drain) == 1
        assert not await drain.quiet(0.001)
        drain.cut()
        drain.cut()  # twice is once
        assert await drain.quiet(5)
        await asyncio.wait({task})
        assert self.counted_first
        return task


async def _call(drain: Drain, scope: Scope, send: Send) -> None:
    await drain(scope, _never, send)


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("/v1/chat/completions", b'data: {"error": {'),
        ("/v1/messages", b'event: error\ndata: {"type": "error"'),
        ("/v1/responses", b'event: error\ndata: {"error": {'),
    ],
)
async def test_a_stream_ends_with_an_event_of_its_protocol(path: str, begins: bytes) -> None:
    story = Story(*STREAM_BEGINS)
    task = await story.cut(path)
    assert task.exception() is None
    last = story.sent[-1]
    assert last["body"].startswith(begins)
    assert last["body"].endswith(b"\n\n")
    assert not last.get("more_body")


async def test_what_has_not_begun_is_503() -> None:
    story = Story()
    await story.cut("/v1/chat/completions")
    assert story.sent[0]["status"] == 503
    assert dict(story.sent[0]["headers"])[b"connection"] == b"close"


async def test_half_a_document_is_never_made_to_look_whole() -> None:
    story = Story(*PLAIN_BEGINS)
    story.counted_first = True  # nothing more is sent that could say so
    drain = Drain(story.app)
    scope: Scope = {"type": "http", "path": "/v1/models", "method": "GET", "headers": []}
    task = asyncio.ensure_future(_call(drain, scope, story.send))
    await asyncio.sleep(0)
    drain.cut()
    await asyncio.wait({task})
    assert story.sent == list(PLAIN_BEGINS)


async def test_a_client_that_does_not_read_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.gateway.draining.LAST_WORDS_S", 0.01)
    story = Story(*STREAM_BEGINS)

    async def stuck(message: Message) -> None:
        if "error" in str(message.get("body", b"")):
            await asyncio.Event().wait()

    drain = Drain(story.app)
    scope: Scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "headers": []}
    task = asyncio.ensure_future(_call(drain, scope, stuck))
    await asyncio.sleep(0)
    drain.cut()
    assert await drain.quiet(5)
    await task


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    drain = Drain(Story().app)
    scope: Scope = {"type": "http", "path": "/v1/models", "method": "GET", "headers": []}
    task = asyncio.ensure_future(_call(drain, scope, Story().send))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(drain) == 0
