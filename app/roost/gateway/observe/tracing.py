"""Where spans go: nowhere, or to an OTLP receiver. Without an endpoint OpenTelemetry's SDK is never imported."""

from __future__ import annotations

import time
from typing import Protocol

from roost.gateway.observe.spans import Span, spans_of
from roost.gateway.request.exchange import Exchange
from roost.gateway.settings import Settings


class Sink(Protocol):
    """Takes finished spans, never waits, and never fails."""

    def take(self, span: Span, began_ns: int, ended_ns: int) -> None:
        """Take a span with its times of the wall clock, in nanoseconds."""
        ...

    def close(self) -> None:
        """Send what is left; may take some seconds."""
        ...


class Tracer:
    """Turns requests that are over into spans."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def ended(self, exchange: Exchange, error: str) -> None:
        """Record a request."""
        now, wall_ns = time.perf_counter(), time.time_ns()

        def at_ns(moment: float) -> int:
            return wall_ns - round((now - moment) * 1e9)

        for span in spans_of(exchange, error, now):
            self._sink.take(span, at_ns(span.began), at_ns(span.ended))

    def close(self) -> None:
        """Send what is left."""
        self._sink.close()


def tracer_of(settings: Settings) -> Tracer | None:
    """Return a tracer that sends to the endpoint of the settings, or None where there is none.

    Raises:
        RoostError: the packages for it are missing.
    """
    if not settings.otel_endpoint:
        return None
    from roost.gateway.observe.otlp import OtlpSink

    return Tracer(OtlpSink(settings.otel_endpoint, settings.otel_ca))
