"""A client that costs little: as many requests as an endpoint takes, and many streams at once."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import cast

import httptools

from bench.scripted import MODEL, MOMENT

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Tell a long story about a heron."},
]
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Target:
    """Whom to ask, and with which key."""

    port: int
    key: str = ""

    def request(self, **more: object) -> bytes:
        """Return a whole request for a chat."""
        body = json.dumps({"model": MODEL, "messages": MESSAGES, **more}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key or 'none'}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []  # of a stream: when it was written and when it came, ns
        self.first_ns = 0
        self._done: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not derived from it

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if self._done and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError("closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.first_ns = self.first_ns or time.monotonic_ns()
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Note each event that carries its moment."""
        now = time.monotonic_ns()
        at = body.find(MOMENT)
        while at >= 0:
            begin = at + len(MOMENT)
            end = body.find(b'"', begin)
            if body[begin:end].isdigit():
                self.events.append((int(body[begin:end]), now))
            at = body.find(MOMENT, end)

    def on_message_complete(self) -> None:
        """Tell who waits."""
        if self._done and not self._done.done():
            self._done.set_result(self._parser.get_status_code())

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the result is the status once the answer is complete."""
        self._parser = httptools.HttpResponseParser(self)
        self.events, self.first_ns = [], 0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


async def connect(port: int) -> Connection:
    """Open a connection to loopback."""
    _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return made


async def saturate(target: Target, connections: int, seconds: float) -> float:
    """Ask over so many connections, each again as soon as it has its answer; return good answers a second."""
    request, end, good = target.request(), time.monotonic() + seconds, 0

    async def one(connection: Connection) -> int:
        done = 0
        while time.monotonic() < end:
            assert await connection.ask(request) == 200
            done += 1
        return done

    opened = [await connect(target.port) for _ in range(connections)]
    began = time.monotonic()
    good = sum(await asyncio.gather(*(one(connection) for connection in opened)))
    took = time.monotonic() - began
    for connection in opened:
        connection.close()
    return good / took


@dataclass(frozen=True)
class Streams:
    """What came of many streams, in ms: to the first byte of each; each event's way; how much each gap grew."""

    first: list[float]
    way: list[float]
    gaps: list[float]


async def stream_many(target: Target, count: int, events: int, per_s: int, within_s: float, seed: int) -> Streams:
    """Run so many streams at once, begun at random moments within `within_s` seconds."""
    chance = random.Random(seed)  # noqa: S311  # moments of a load, no secret
    request = target.request(stream=True, max_tokens=events, seed=per_s)
    found = Streams([], [], [])

    async def one(after_s: float) -> None:
        connection = await connect(target.port)
        await asyncio.sleep(after_s)
        began = time.monotonic_ns()
        async with asyncio.timeout(PATIENCE_S + events / per_s):
            assert await connection.ask(request) == 200
        assert len(connection.events) == events
        found.first.append((connection.first_ns - began) / 1e6)
        found.way.extend((came - written) / 1e6 for written, came in connection.events)
        pairs = zip(connection.events, connection.events[1:], strict=False)
        found.gaps.extend(((c2 - c1) - (w2 - w1)) / 1e6 for (w1, c1), (w2, c2) in pairs)
        connection.close()

    await asyncio.gather(*(one(chance.uniform(0, within_s)) for _ in range(count)))
    return found
