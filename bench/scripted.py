"""A scripted model server that costs next to nothing, in a process of its own: answers at once, streams at a pace.

Each event of a stream carries the moment it was written (`time.monotonic_ns`, the same clock for every process of a
machine), so that whoever reads it knows how long it was on its way.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import cast

import httptools
import uvloop

MODEL = "scripted"
SLOTS = 4096
CONTEXT = 32768
USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
MOMENT = b'"content": "'  # stands before the moment in an event


def _document(document: object, status: bytes = b"200 OK") -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(content: str, finish: str | None = None) -> bytes:
    delta = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [delta]}
    return b"data: " + json.dumps(head).encode() + b"\n\n"


MESSAGE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A heron stood there."}}
ANSWER = _document(
    {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [MESSAGE],
     "usage": USAGE}
)  # fmt: skip
PROPS = {"total_slots": SLOTS, "model_path": "/m.gguf", "default_generation_settings": {"n_ctx": CONTEXT}}
PAGES = {
    b"/health": _document({"status": "ok"}),
    b"/v1/models": _document({"data": [{"id": MODEL, "meta": {"n_ctx": CONTEXT}}]}),
    b"/props": _document(PROPS),
}
NOT_FOUND = _document({"error": {"message": "no such page"}}, b"404 Not Found")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Server(asyncio.Protocol):
    """One connection. A streamed request says in `max_tokens` how many events it wants, in `seed` how many a second."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url, self.body = url, b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if not self.url.endswith(b"/chat/completions"):
            self.transport.write(PAGES.get(self.url, NOT_FOUND))
        elif b'"stream": true' in self.body or b'"stream":true' in self.body:
            asked = json.loads(self.body)
            self.transport.write(STREAM_HEAD)
            self._stream(asked["max_tokens"], 1 / asked["seed"], time.monotonic())
        else:
            self.transport.write(ANSWER)

    def _stream(self, left: int, pause_s: float, due: float) -> None:
        if self.transport.is_closing():
            return
        if not left:
            end = _event("", "stop") + b"data: [DONE]\n\n"
            self.transport.write(_chunk(end) + b"0\r\n\r\n")
            return
        self.transport.write(_chunk(_event(str(time.monotonic_ns()))))
        due += pause_s
        asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._stream, left - 1, pause_s, due)


async def _serve(port_to: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=4096)
    port_to.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _process(port_to: Connection, cores: frozenset[int]) -> None:
    os.sched_setaffinity(0, cores)
    uvloop.run(_serve(port_to))


@contextmanager
def scripted_server(cores: frozenset[int]) -> Iterator[int]:
    """Run it on these cores; yields its port."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_process, args=(there, cores), daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()
