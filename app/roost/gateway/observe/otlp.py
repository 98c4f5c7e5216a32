"""Spans to an OTLP receiver over HTTP, by OpenTelemetry's SDK. Imported only where an endpoint is set: it takes memory.

The SDK's processor keeps up to 2,048 spans and sends them from a thread of its own; what is beyond that, or cannot be
sent, is dropped: requests never wait for a receiver.
"""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from typing import Protocol

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from roost import __version__
from roost.gateway.observe import trace_names as names
from roost.gateway.observe.spans import Span

TRACES = "/v1/traces"
TIMEOUT_S = 10
CLOSE_S = 2
DELAY_S = 1  # until a batch that is not full is sent
KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}


class _Processor(Protocol):
    """What is used of the SDK's processor, with types."""

    def on_end(self, span: ReadableSpan) -> None: ...

    def shutdown(self) -> None: ...


class OtlpSink:
    """Sends spans to the receiver at `endpoint`, its base URL, in batches."""

    def __init__(self, endpoint: str, ca: Path | None = None) -> None:
        exporter = OTLPSpanExporter(
            endpoint=endpoint.rstrip("/") + TRACES, timeout=TIMEOUT_S, certificate_file=str(ca) if ca else None
        )
        self._processor: _Processor = BatchSpanProcessor(exporter, schedule_delay_millis=DELAY_S * 1000)
        self._scope = InstrumentationScope(names.SCOPE, __version__)
        self._resource = Resource(
            {
                names.SERVICE_NAME: names.SERVICE,
                names.SERVICE_VERSION: __version__,
                names.SERVICE_INSTANCE: socket.gethostname(),
            }
        )
        # A receiver that is away is said once a batch; the client's retries need not be.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def take(self, span: Span, began_ns: int, ended_ns: int) -> None:
        """Queue a span."""

        def at_ns(moment: float) -> int:
            return began_ns + round((moment - span.began) * 1e9)

        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_context(span.trace_id, span.span_id),
                parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
                resource=self._resource,
                attributes=dict(span.attributes),
                events=[Event(event.name, dict(event.attributes), at_ns(event.at)) for event in span.events],
                kind=KINDS[span.role],
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
                start_time=began_ns,
                end_time=ended_ns,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Send what is queued, for at most some seconds: the SDK would wait for a receiver that is away."""
        closing = threading.Thread(target=self._processor.shutdown, name="otlp close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
