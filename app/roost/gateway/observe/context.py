"""Which request something belongs to: its id and its trace, for every line of the log and for other services.

The header is W3C's `traceparent` (https://www.w3.org/TR/trace-context/), version 00.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp

TRACEPARENT = "traceparent"
PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
NO_VERSION = "ff"
HEX_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True, eq=False)  # one is made for every request: frozen ones take four times as long
class Trace:
    """The trace of one request. `parent` is the span of who sent it, empty where nobody said; ids are in hex.

    `sampled` says whether spans of it are recorded; `given` that another service began it.
    """

    trace_id: str
    parent: str = ""
    sampled: bool = False
    given: bool = False

    def header(self, span_id: str) -> str:
        """Return the `traceparent` that a further service gets."""
        return f"00-{self.trace_id}-{span_id}-{SAMPLED if self.sampled else 0:02x}"


@dataclass(slots=True)
class Current:
    """The request that the running task works on."""

    request_id: str
    trace_id: str


OUTGOING: ContextVar[str] = ContextVar("roost_traceparent", default="")  # for what the running task sends
CURRENT: ContextVar[Current | None] = ContextVar("roost_request", default=None)


def parse_traceparent(header: str) -> Trace | None:
    """Read the header; None where it is not valid: then a new trace begins, as the specification wants it."""
    found = PARENT.fullmatch(header.strip())
    if not found:
        return None
    version, trace_id, parent, flags, more = found.groups()
    if version == NO_VERSION or (version == "00" and more) or not (trace_id.strip("0") and parent.strip("0")):
        return None
    return Trace(trace_id, parent, sampled=bool(int(flags, 16) & SAMPLED), given=True)


def new_span_id() -> str:
    """Return a random id of a span, never all zeros."""
    found = os.urandom(8).hex()
    return found if found.strip("0") else new_span_id()


def begin(header: str, request_id: str, ratio: float) -> Trace:
    """Return the trace of a request: the one its header names, else a new one of which the share `ratio` is sampled.

    A request id of our own making is 122 random bits, and serves as trace id as well: one name to look for. What the
    sender decided on sampling is kept to, but nothing is sampled where `ratio` is 0.
    """
    given = parse_traceparent(header) if header else None
    if given:
        return given if ratio else Trace(given.trace_id, given.parent, sampled=False, given=True)
    trace_id = request_id if HEX_ID.fullmatch(request_id) else os.urandom(16).hex()
    return Trace(trace_id, sampled=ratio > 0 and is_sampled(trace_id, ratio))


def is_sampled(trace_id: str, ratio: float) -> bool:
    """Say whether a trace is among the share `ratio` (0 to 1) of all: by its last 56 bits, so that all services agree.

    https://www.w3.org/TR/trace-context-2/#randomness-of-trace-id
    """
    return int(trace_id[-14:], 16) < ratio * (1 << 56)


def traceparent() -> dict[str, str]:
    """Return the header that tells the receiver of a request which trace it belongs to, or nothing."""
    header = OUTGOING.get()
    return {TRACEPARENT: header} if header else {}


async def with_trace(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Tell the receiver of a request which trace it belongs to; a middleware of the session to model servers."""
    if header := OUTGOING.get():
        request.headers[TRACEPARENT] = header
    return await handler(request)
