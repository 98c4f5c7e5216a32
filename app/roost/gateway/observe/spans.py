"""From what was noted of a request to the spans of its trace: pure, after the request is over.

POST /v1/chat/completions        what the client sees
  queue                          until its key had a place for it
  route                          until a model server was chosen, once for each attempt
  chat MODEL                     one attempt at a model server; its id went there as `traceparent`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from roost.gateway.observe import trace_names as names
from roost.gateway.observe.context import new_span_id
from roost.gateway.observe.marks import ADMITTED, ATTEMPT, LOST, SEATED, Mark
from roost.gateway.request.exchange import Exchange

LONGEST_NAME = 100  # of a model as a client writes it
Value = str | int | float | bool
Attributes = Mapping[str, Value]
Role = Literal["server", "client", "internal"]


@dataclass(frozen=True)
class Event:
    """Something that happened at one moment of a span; `at` as of `time.perf_counter`."""

    name: str
    at: float
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """A span. Times are of `time.perf_counter`, ids hex; `error` is empty when all went well."""

    name: str
    role: Role
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    attributes: Attributes
    events: Sequence[Event] = ()
    error: str = ""


def spans_of(exchange: Exchange, error: str, now: float) -> list[Span]:
    """Return the spans of a request that ended at `now`; `error` is what was the matter, see `observe.errors`."""
    root = Span(
        f"POST {exchange.kind.path}",
        "server",
        exchange.trace.trace_id,
        new_span_id(),
        exchange.trace.parent,
        exchange.started,
        now,
        _of_request(exchange, error),
        tuple(_events(exchange)),
        error,
    )
    return [root, *_waits(exchange, root, now), *_attempts(exchange, root, error, now)]


def _of_request(exchange: Exchange, error: str) -> Attributes:
    found: dict[str, Value] = {
        names.HTTP_METHOD: "POST",
        names.HTTP_ROUTE: exchange.kind.path,
        names.HTTP_STATUS: exchange.status,
        names.REQUEST_ID: exchange.request_id,
        names.KEY: exchange.ticket.key.name if exchange.ticket else "",
        names.FALLBACK_FOR: exchange.instead_of,
        names.ERROR_TYPE: error,
        **_usage(exchange),
    }
    return {name: value for name, value in found.items() if value != ""}


def _usage(exchange: Exchange) -> dict[str, Value]:
    found: dict[str, Value] = {
        names.OPERATION: names.OPERATIONS.get(exchange.kind.name, exchange.kind.name),
        names.REQUEST_MODEL: exchange.asked[:LONGEST_NAME],
        names.REQUEST_STREAM: exchange.stream,
        names.RESPONSE_MODEL: exchange.served,
    }
    if not exchange.stream:
        del found[names.REQUEST_STREAM]  # the convention's default
    if exchange.stream and exchange.first_byte is not None:
        found[names.FIRST_CHUNK] = round(exchange.first_byte - exchange.started, 6)
    if exchange.tokens:
        found[names.INPUT_TOKENS] = exchange.tokens.prompt
        found[names.OUTPUT_TOKENS] = exchange.tokens.completion
        found[names.CACHED_TOKENS] = exchange.tokens.cached
    return found


def _events(exchange: Exchange) -> Iterator[Event]:
    for mark in exchange.marks:
        if mark.what == LOST:
            yield Event(names.FAILOVER, mark.at, {names.ENDPOINT: mark.endpoint, names.REASON: mark.reason})
        elif mark.what not in (ADMITTED, SEATED, ATTEMPT):
            yield Event(mark.what, mark.at, {names.REASON: mark.reason} if mark.reason else {})
    if exchange.first_byte is not None and exchange.stream:
        yield Event(names.FIRST_CONTENT, exchange.first_byte)


def _waits(exchange: Exchange, root: Span, now: float) -> Iterator[Span]:
    """Yield where time went before and between attempts."""
    since: dict[str, float] = {}  # name of the wait -> when it began
    for mark in exchange.marks:
        for name in list(since):
            if mark.what in (SEATED, ATTEMPT):
                yield _wait(name, root, since.pop(name), mark.at)
        if mark.what == ADMITTED:
            since[names.QUEUE] = mark.at
        elif mark.what in (SEATED, LOST):
            since[names.ROUTE] = mark.at
    for name, began in since.items():
        yield _wait(name, root, began, now)


def _wait(name: str, root: Span, began: float, ended: float) -> Span:
    return Span(name, "internal", root.trace_id, new_span_id(), root.span_id, began, ended, {})


def _attempts(exchange: Exchange, root: Span, error: str, now: float) -> Iterator[Span]:
    marks = exchange.marks
    for place, mark in enumerate(marks):
        if mark.what != ATTEMPT:
            continue
        end = next((later for later in marks[place + 1 :] if later.what in (LOST, ATTEMPT)), None)
        last = end is None
        usage = _usage(exchange) if last else {}
        yield Span(
            f"{names.OPERATIONS.get(exchange.kind.name, exchange.kind.name)} {mark.model}",
            "client",
            root.trace_id,
            mark.span,
            root.span_id,
            mark.at,
            now if end is None else end.at,
            {**usage, **_of_attempt(exchange, mark), **({names.ERROR_TYPE: error} if last and error else {})},
            error=error if last else (end.reason or "lost") if end else "",
        )


def _of_attempt(exchange: Exchange, mark: Mark) -> Attributes:
    slot, _, address = mark.endpoint.partition("@")
    host, _, port = address.partition("/")[0].rpartition(":")
    found: dict[str, Value] = {
        names.OPERATION: names.OPERATIONS.get(exchange.kind.name, exchange.kind.name),
        names.PROVIDER: names.ENGINE_PROVIDERS.get(exchange.engine, exchange.engine) or names.DEFAULT_PROVIDER,
        names.REQUEST_MODEL: mark.model,
        names.SLOT: slot,
        names.ENDPOINT: mark.endpoint,
        names.SERVER_ADDRESS: host or address,
    }
    if port.isdigit():
        found[names.SERVER_PORT] = int(port)
    return found
