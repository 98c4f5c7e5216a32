"""A stream of events from a model server to a client, as it comes, and what the client has of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import Send

from roost.engines.base import Answer
from roost.gateway.account import accounting
from roost.gateway.balance.continuing import events_of
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.request.exchange import Exchange, start

EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
ENDED_EARLY = "it ended the stream early"
MOST_EVENT_BYTES = 64 << 20  # the last event of a streamed response holds all of it
ENDLESS = "it sent an event that does not end"
CLIENT_ERRORS, SERVER_ERRORS = 400, 500
REPORTED = "the model server reported an error"


class UnansweredError(Exception):
    """This endpoint did not answer; nothing of it has reached the client."""

    def __init__(self, reason: str, *, died: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.died = died


class InterruptedStreamError(Exception):
    """This endpoint broke off; what it said before has reached the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def whole_events(data: bytes) -> int:
    """Return how many bytes of `data` are complete server-sent events."""
    return max((at + len(end) for end in EVENT_ENDS if (at := data.rfind(end)) >= 0), default=0)


async def relay(
    endpoint: Endpoint, answer: Answer, exchange: Exchange, send: Send, settle: Callable[[], None]
) -> bool | None:
    """Pass chunks on as they come, cut only between events so that a broken stream still parses.

    `settle` is called before the last event goes out. Returns whether the server did its part: True, False where its
    last word is an error of its own, None where that is an error of the request.

    Raises:
        UnansweredError: it sent no event at all.
        InterruptedStreamError: it ended without its last event.
    """
    held = b""
    while chunk := await answer.content.readany():
        endpoint.engine.proved()
        exchange.piece()
        data = held + chunk if held else chunk
        end = len(data) if data.endswith(b"\n\n") else whole_events(data)
        held, data = data[end:], data[:end]
        if len(held) > MOST_EVENT_BYTES:
            raise InterruptedStreamError(ENDLESS) if exchange.begun else UnansweredError(ENDLESS, died=True)
        if exchange.splice and data:
            data = exchange.splice.events(data)
        if not data:
            continue
        if not exchange.begun:
            exchange.first_byte = time.perf_counter()
            exchange.head = data
            await start(exchange, send, [*STREAM_HEADERS])
        _take(exchange, data)
        if exchange.ended:
            settle()
        await send({"type": "http.response.body", "body": data, "more_body": True})
    if not exchange.begun:
        raise UnansweredError("it sent an empty stream", died=True)
    did: bool | None = True
    if not exchange.ended and (code := error_code(exchange.tail.text())):
        exchange.cut, exchange.status = REPORTED, 502
        did = False if code >= SERVER_ERRORS else None
    elif not exchange.ended:
        raise InterruptedStreamError(ENDED_EARLY)
    await send({"type": "http.response.body", "body": held})
    return did


def _take(exchange: Exchange, data: bytes) -> None:
    """Take note of what goes to the client."""
    exchange.ended = exchange.kind.ended(data)
    exchange.tail.add(data)
    events = data.count(accounting.DATA)
    exchange.events += events
    if exchange.seat:
        exchange.seat.wrote(events)
    if exchange.transcript and not exchange.ended:
        exchange.transcript.keep(data)


def error_code(tail: bytes) -> int:
    """Return the status of the error that the last event told the client of, 500 where it says none; 0: it did not."""
    last = tail.rstrip()
    for _, document in events_of(last[max(last.rfind(b"\n\n"), last.rfind(b"\n\r\n"), 0) :]):
        if document is None or not (document.get("error") or document.get("type") == "error"):
            return 0
        error = document.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, int) and code >= CLIENT_ERRORS else SERVER_ERRORS
    return 0
