"""Malformed requests, as bytes for a connection, and what came of sending many of them.

Nothing is checked but what must hold for any input: no answer says that the service failed, none of it stays behind,
and the service answers afterwards.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tests.support.gateway import API_KEY

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
ANSWER_S = 90.0  # for a complete request; refusals are held back for those who send many
SILENCE_S = 0.3  # then no more is coming
LINGER_S = 0.05  # a client that stops in the middle leaves after so long
AT_ONCE = 96  # more than are held back at once for what they sent before
MESSAGES: list[object] = [{"role": "user", "content": "Hello"}]
GOOD: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": MESSAGES},
    "/v1/completions": {"model": "tiny", "prompt": "Hello", "max_tokens": 4},
    "/v1/embeddings": {"model": "tiny", "input": "Hello"},
    "/v1/rerank": {"model": "tiny", "query": "a", "documents": ["b", "c"]},
    "/v1/responses": {"model": "tiny", "input": "Hello"},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 4},
    "/v1/messages/count_tokens": {"model": "tiny", "messages": MESSAGES},
    "/v1/tokenize": {"model": "tiny", "content": "Hello"},
    "/v1/detokenize": {"model": "tiny", "tokens": [1, 2]},
    "/v1/count": {"model": "tiny", "messages": MESSAGES},
}
FIELDS = (
    "model",
    "messages",
    "prompt",
    "input",
    "tools",
    "response_format",
    "json_schema",
    "grammar",
    "stop",
    "n",
    "stream",
    "max_tokens",
    "temperature",
    "logit_bias",
    "stream_options",
    "seed",
    "lora",
    "content",
    "tokens",
    "documents",
    "text",
)
OTHERS = (
    "/",
    "/v1/models",
    "/v1/models/x",
    "/v1/key",
    "/v1/limits",
    "/v1/usage",
    "/metrics",
    "/metrics/engines",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/nope",
    "/v1/models/%00",
    "/v1/usage?by=%ff&from=x",
    "//",
    "/v1/../v1/key",
    "/v1/models/" + "a" * 3000,
    "*",
    "http://127.0.0.1/v1/models",
    "/roost/v1/decisions?limit=-1",
    "/roost/v1/decisions?limit=99999999999999999999",
    "/roost/v1/endpoints",
    "/roost/v1/replicas",
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO", "get")
RAW_VALUES = (
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"-1e999",
    b"NaN",
    b"Infinity",
    b"9" * 400,
    b"0." + b"1" * 400,
    b'""',
    b"[]",
    b"{}",
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\\u0000"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b"[[[[[[]]]]]]",
    b"[1,2",
    b"[" * 5000,
    b'{"a":' * 5000,
    b'{"a":1,"a":2}',
    b"1.0",
    b"18446744073709551616",
    b'"' + b"x" * 5000 + b'"',
    b"'a'",
    b"[null,true,{}]",
    b'{"role":"user"}',
    b'[{"role":"user"}]',
    b'[{"role":"","content":[]}]',
    b'[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http:"}}]}]',
    b"/*c*/1",
    b"0x10",
    b"\xef\xbb\xbf1",
)


def _value(chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return chance.randbytes(chance.randint(0, 40))
    return chance.choice(RAW_VALUES)


def _body(chance: random.Random, path: str) -> bytes:
    """Return a document of that route with something wrong in it, or no document at all."""
    good = dict(GOOD[path])
    way = chance.random()
    if way < 0.1:
        return chance.randbytes(chance.randint(0, 200))
    if way < 0.2:
        return _value(chance)
    parts = {name: json.dumps(value).encode() for name, value in good.items()}
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(FIELDS if chance.random() < 0.5 else list(good))
        if chance.random() < 0.2:
            parts.pop(name, None)
        else:
            parts[name] = _value(chance)
    text = b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in parts.items()) + b"}"
    if way < 0.3:
        at = chance.randrange(len(text))
        text = text[:at] + chance.randbytes(chance.randint(0, 3)) + text[at + chance.randint(0, 3) :]
    return text[: chance.randrange(len(text))] if way > 0.95 else text


def _head(method: str, path: str, *lines: bytes, key: str = API_KEY) -> bytes:
    first = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n".encode()
    return first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _whole(chance: random.Random) -> bytes:
    path = chance.choice(list(GOOD))
    body = _body(chance, path)
    return _head("POST", path, b"Content-Type: application/json", b"Content-Length: %d" % len(body)) + body


def _other(chance: random.Random) -> bytes:
    method, path = chance.choice(METHODS), chance.choice((*OTHERS, *GOOD))
    body = _value(chance) if chance.random() < 0.5 else b""
    return _head(method, path, b"Content-Length: %d" % len(body)) + body


HEADERS = (
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: abc",
    b"Content-Length: 5, 5",
    b"Content-Length: 1\r\nContent-Length: 2",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: chunked, chunked",
    b"X: " + b"y" * 70_000,
    b"X\x00Y: 1",
    b": 1",
    b"X",
    b" folded: 1",
    b"X: \xff\xfe\x00",
    b"Expect: 100-continue",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"X-Roost-Context: \xe2\x82\xac",
    b"X-Roost-Wait: 1e999",
    b"X-Roost-Wait: nan",
    b"X-Roost-Session: " + b"s" * 9000,
    b"X-Request-Id: " + b"r" * 9000,
    b"Traceparent: 00-zz-zz-zz",
    b"Content-Encoding: gzip",
    b"Authorization: Basic \xff",
)
CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n",
    b"-1\r\n",
    b"zz\r\nhello\r\n",
    b"ffffffffffffffffff\r\nx",
    b"5\r\nhel",
    b"0\r\n\r\n",
    b"5;" + b"e" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloXX0\r\n\r\n",
    b"\r\n\r\n",
    b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
)
STARTS = (
    b"",
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%zz%f HTTP/1.1\r\nHost: x\r\n\r\n",
)


def _header(chance: random.Random) -> bytes:
    return _head("POST", chance.choice(list(GOOD)), chance.choice(HEADERS)) + _value(chance)


def _chunked(chance: random.Random) -> bytes:
    return _head("POST", chance.choice(list(GOOD)), b"Transfer-Encoding: chunked") + chance.choice(CHUNKS)


def _start(chance: random.Random) -> bytes:
    return chance.choice(STARTS) if chance.random() < 0.7 else chance.randbytes(chance.randint(1, 300))


def _pipelined(chance: random.Random) -> bytes:
    several = b"".join(chance.choice((_whole, _other, _chunked))(chance) for _ in range(chance.randint(2, 5)))
    return several.replace(b"Connection: close\r\n", b"")


KINDS = {
    "body": (_whole, 50),
    "route": (_other, 15),
    "header": (_header, 10),
    "chunked": (_chunked, 8),
    "start": (_start, 7),
    "pipelined": (_pipelined, 5),
    "cut": (_whole, 5),
}


@dataclass(frozen=True)
class Sent:
    """What one connection carries. `cut`: the client leaves without waiting for an answer; `slow`: byte by byte."""

    kind: str
    data: bytes
    cut: bool = False
    slow: bool = False

    @property
    def whole(self) -> bool:
        """Say whether it is a complete request, which must have an answer."""
        return self.kind in {"body", "route"}


def malformed(seed: int, count: int) -> Iterator[Sent]:
    """Yield so many; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  # inputs of a test, no secret
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    for _ in range(count):
        kind = chance.choices(names, weights)[0]
        data = KINDS[kind][0](chance)
        if kind == "cut":
            yield Sent(kind, data[: chance.randint(1, len(data))], cut=True, slow=chance.random() < 0.2)
        else:
            yield Sent(kind, data)


@dataclass
class Fuzzed:
    """What came of it: answers by status, connections without one, and what was sent when the service failed."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    silent: int = 0
    unanswered: list[bytes] = field(default_factory=list)  # complete requests
    failures: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, other: Fuzzed) -> None:
        """Count what came of more."""
        self.sent.update(other.sent)
        self.statuses.update(other.statuses)
        self.silent += other.silent
        self.unanswered += other.unanswered
        self.failures += other.failures


async def fuzz(port: int, inputs: Iterable[Sent]) -> Fuzzed:
    """Send them all, many at once."""
    found, waiting = Fuzzed(), iter(inputs)

    async def worker() -> None:
        for sent in waiting:
            found.sent[sent.kind] += 1
            heard = await _send(port, sent)
            statuses = [int(status) for status in STATUS.findall(heard)]
            found.statuses.update(statuses)
            found.silent += not statuses
            if sent.whole and not statuses:
                found.unanswered.append(sent.data)
            found.failures += [(status, sent.data) for status in statuses if status == 500]

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return found


async def _send(port: int, sent: Sent) -> bytes:
    heard = b""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return heard
    try:
        with suppress(OSError, TimeoutError):
            for part in (sent.data[at : at + 1] for at in range(8)) if sent.slow else (sent.data,):
                writer.write(part)
                await writer.drain()
            if sent.cut:
                await asyncio.sleep(LINGER_S if sent.slow else 0)
            else:
                while True:
                    async with asyncio.timeout(ANSWER_S if sent.whole and not heard else SILENCE_S):
                        if not (data := await reader.read(65536)):
                            break
                    heard += data
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return heard
