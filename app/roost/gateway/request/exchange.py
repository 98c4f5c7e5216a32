"""One request while it runs: what is known of it, and how its answer begins."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

from starlette.types import Send

from roost.gateway.account.accounting import Tail, Tokens
from roost.gateway.account.places import Ticket
from roost.gateway.balance.balancer import Seat
from roost.gateway.balance.continuing import Splice, Transcript
from roost.gateway.choice.cascade import Cascade
from roost.gateway.choice.ring import Decided
from roost.gateway.metrics import NO_MODEL
from roost.gateway.observe.context import OUTGOING, Trace, new_span_id
from roost.gateway.observe.marks import ADMITTED, ATTEMPT, LOST, Mark
from roost.gateway.observe.series import slots
from roost.gateway.request.kinds import CHAT, Kind
from roost.gateway.routing import ADAPTER_MARK
from roost.ops.metric_names import GAP_SECONDS

NO_TRACE = Trace("")


@dataclass(slots=True)
class Exchange:
    """What is known of one request while it runs, for headers, metrics and the log."""

    request_id: str
    kind: Kind = CHAT
    started: float = field(default_factory=time.perf_counter)
    model: str = NO_MODEL
    endpoint: str = ""
    adapter: str = ""
    decided: Decided | None = None  # which model was chosen for `auto`, and why
    cascade: Cascade | None = None  # who tries again if the answer is not good enough
    instead_of: str = ""  # the name that was asked for, when another model answers
    why_instead: str = ""
    status: int = 0
    stream: bool = False
    forgiving: bool = True  # another model may answer
    may_cut: bool = False  # what does not fit the context
    was_cut: str = ""
    first_byte: float | None = None
    begun: bool = False  # the client has response headers
    head: bytes = b""  # the first events of a stream
    whole: bytes = b""  # of an answer that is no stream
    tail: Tail = field(default_factory=Tail)  # of a stream
    ended: bool = False  # the last event of a stream is there
    cut: str = ""  # why a stream ended early
    ticket: Ticket | None = None
    events: int = 0  # of a stream, that went to the client
    sent_on: float = 0.0  # when a model server got it
    tokens: Tokens | None = None
    settled: bool = False
    asked: str = NO_MODEL  # the model's name as the client wrote it
    error_code: str | None = None
    engine: str = ""  # the kind of model server that answers
    trace: Trace = NO_TRACE
    marks: list[Mark] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)  # between pieces of a stream, by bucket of GAP_SECONDS
    gaps_s: float = 0.0
    last_piece: float = 0.0
    wait_s: float = 0.0  # for a model, and for a slot of it
    move_wait_s: float = 0.0  # for a model that comes on another machine
    session: str = ""
    seat: Seat | None = None  # at the endpoint that has it, or had it last
    transcript: Transcript | None = None  # of a stream of text, as far as the client has it
    fingerprint: str = ""  # of the model that began the stream
    splice: Splice | None = None  # how another server's events become those of the stream
    broke: str = ""  # why the server failed that began it
    asked_as: str = ""  # the model's name at the endpoint that has it now
    continued: list[str] = field(default_factory=list)  # the endpoints at which the stream went on

    def mark(self, what: str, reason: str = "") -> None:
        """Note that something happens just now."""
        self.marks.append(Mark(time.perf_counter(), what, self.endpoint, reason))

    def attempt(self) -> None:
        """Note that the endpoint gets the request; what this task sends from now on says which trace it belongs to."""
        trace = self.trace
        span = new_span_id() if trace.sampled else ""
        self.marks.append(Mark(time.perf_counter(), ATTEMPT, self.endpoint, span=span, model=self.served))
        if span or trace.given:  # what is not recorded here keeps its parent
            OUTGOING.set(trace.header(span or trace.parent))

    def lost(self, reason: str) -> None:
        """Note that the endpoint did not answer."""
        self.mark(LOST, reason)

    def piece(self) -> None:
        """Note that a piece of a stream came from the model server."""
        now = time.perf_counter()
        if self.last_piece:
            gap = now - self.last_piece
            if not self.gaps:
                self.gaps = slots(GAP_SECONDS)
            self.gaps[bisect_left(GAP_SECONDS, gap)] += 1
            self.gaps_s += gap
        self.last_piece = now

    def waited_s(self) -> float | None:
        """Return how long it took from the admission to the first attempt; None if there was none."""
        admitted = next((mark.at for mark in self.marks if mark.what == ADMITTED), None)
        tried = next((mark.at for mark in self.marks if mark.what == ATTEMPT), None)
        return tried - admitted if admitted is not None and tried is not None else None

    @property
    def served(self) -> str:
        """Return the model that answers, with its adapter."""
        return f"{self.model}{ADAPTER_MARK}{self.adapter}" if self.adapter else self.model


def response_headers(exchange: Exchange) -> dict[str, str]:
    """Return what an answer's headers say of who gave it, and of the key's limits."""
    named = {
        "x-roost-model": exchange.served,
        "x-roost-endpoint": exchange.endpoint,
        "x-roost-route": exchange.decided.decision.header() if exchange.decided else "",
        "x-roost-cascade": exchange.cascade.header() if exchange.cascade else "",
        "x-roost-routed-by": exchange.seat.why.value if exchange.seat else "",
        "x-roost-fallback-for": exchange.instead_of,
        "x-roost-fallback-reason": exchange.why_instead,
        "x-roost-cut": exchange.was_cut,
    }
    limits = exchange.ticket.headers if exchange.ticket else {}
    return {name: _header_value(value) for name, value in named.items() if value} | limits


async def start(exchange: Exchange, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    """Begin a good answer."""
    exchange.begun, exchange.status = True, 200
    extra = [(name.encode(), value.encode()) for name, value in response_headers(exchange).items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers + extra})


async def send_whole(exchange: Exchange, send: Send, content_type: bytes, body: bytes) -> None:
    """Send a good answer that is no stream."""
    await start(exchange, send, [(b"content-type", content_type), (b"content-length", b"%d" % len(body))])
    await send({"type": "http.response.body", "body": body})


def _header_value(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    return "".join(c if " " <= c <= "~" else "?" for c in value)  # a model may have any name
