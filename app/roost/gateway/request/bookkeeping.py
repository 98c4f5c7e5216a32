"""What is written down of a request once it is over: usage, metrics, one line of the log."""

from __future__ import annotations

import time

import structlog

from roost.gateway.account import accounting
from roost.gateway.account.meter import Meter, Outcome
from roost.gateway.choice.cascade import RejectedAnswerError
from roost.gateway.choice.chooser import finished
from roost.gateway.metrics import Metrics
from roost.gateway.observe.ended import report
from roost.gateway.observe.tracing import Tracer
from roost.gateway.request.exchange import Exchange

log = structlog.get_logger(__name__)


class Books:
    """One object a service."""

    def __init__(self, metrics: Metrics, meter: Meter, tracer: Tracer | None) -> None:
        self._metrics = metrics
        self._meter = meter
        self._tracer = tracer

    def settle(self, exchange: Exchange, status: int) -> None:
        """Count the request, once; before its last byte goes out, so that nobody has an answer that was not counted."""
        if exchange.settled:
            return
        exchange.settled = True
        if exchange.whole:
            exchange.tokens = accounting.of_answer(exchange.whole)
        elif tail := exchange.tail.text():
            exchange.tokens = accounting.of_stream(tail, exchange.head)
        if exchange.ticket:
            busy_ms = (time.perf_counter() - exchange.sent_on) * 1000 if exchange.sent_on else 0.0
            outcome = Outcome(exchange.model, status, exchange.tokens, exchange.events, busy_ms)
            self._meter.settle(exchange.ticket, outcome)

    def reject(self, exchange: Exchange, answer: RejectedAnswerError) -> None:
        """Count an answer that is not passed on, and make the exchange ready for the next one."""
        tokens = accounting.of_answer(answer.body)
        model = exchange.served
        if exchange.ticket:
            busy_ms = (time.perf_counter() - exchange.sent_on) * 1000 if exchange.sent_on else 0.0
            self._meter.charge(exchange.ticket, Outcome(exchange.model, 200, tokens, 0, busy_ms))
        if exchange.cascade:
            exchange.cascade.rejected.append((model, answer.why))
        used = {"tokens_in": tokens.prompt, "tokens_out": tokens.completion} if tokens else {}
        if exchange.decided:
            exchange.decided.cascade.append({"model": model, "why": answer.why.value, **used})
        self._metrics.cascaded(model, answer.why.value)
        log.info("cascade", request_id=exchange.request_id, model=model, why=answer.why.value, **used)
        exchange.whole, exchange.first_byte, exchange.sent_on = b"", None, 0.0

    def settle_rejected(self, exchange: Exchange) -> None:
        """Close the account of a request that is answered with a rejected answer after all: that was counted then."""
        exchange.settled = True
        if exchange.ticket:
            exchange.ticket.settle(0)

    def close(self, exchange: Exchange) -> None:
        """Write down a request that is over."""
        self.settle(exchange, exchange.status)
        finished(exchange.decided, exchange.served, exchange.status)
        now = time.perf_counter()
        tokens = exchange.tokens
        if exchange.instead_of and exchange.begun:
            self._metrics.fell_back(exchange.endpoint.partition("@")[0], exchange.why_instead)
        first_s = exchange.first_byte - exchange.started if exchange.first_byte else None
        report(exchange, self._metrics, self._tracer)
        seat = exchange.seat
        log.info(
            exchange.kind.name,
            request_id=exchange.request_id,
            key=exchange.ticket.key.name if exchange.ticket else None,
            model=exchange.served,
            instead_of=exchange.instead_of or None,
            endpoint=exchange.endpoint,
            routed_by=seat.why.value if seat else None,
            queued_ms=round(seat.waited_s * 1000, 1) if seat and seat.waited_s else None,
            continued_at=exchange.continued or None,
            status=exchange.status,
            stream=exchange.stream,
            first_ms=round(first_s * 1000, 1) if first_s is not None else None,
            total_ms=round((now - exchange.started) * 1000, 1),
            tokens_in=tokens.prompt if tokens else None,
            tokens_out=tokens.completion if tokens else None,
            tokens_cached=tokens.cached if tokens else None,
            tokens_expected_cached=seat.expected if seat and tokens else None,
            cut=exchange.cut or None,
            left_out=exchange.was_cut or None,
        )
