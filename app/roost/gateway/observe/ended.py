"""What is reported of a request once it is over: to the metrics, and as spans to whoever wants traces."""

from __future__ import annotations

import time

from roost.gateway.metrics import Ended, Metrics
from roost.gateway.observe.errors import error_of
from roost.gateway.observe.tracing import Tracer
from roost.gateway.request.exchange import Exchange


def report(exchange: Exchange, metrics: Metrics, tracer: Tracer | None) -> None:
    """Count a request that is over, and record its spans if its trace is sampled."""
    error = error_of(exchange.status, exchange.error_code, cut=bool(exchange.cut))
    first_s = exchange.first_byte - exchange.started if exchange.first_byte and exchange.stream else None
    metrics.finished(
        Ended(
            exchange.kind.name,
            exchange.served,
            exchange.endpoint,
            exchange.status,
            duration_s=time.perf_counter() - exchange.started,
            error=error,
            first_s=first_s,
            waited_s=exchange.waited_s(),
            gaps=exchange.gaps,
            gaps_s=exchange.gaps_s,
            tokens=exchange.tokens,
        )
    )
    if tracer and exchange.trace.sampled:
        tracer.ended(exchange, error)
