"""A receiver of traces: OTLP over HTTP in protobuf, as https://opentelemetry.io/docs/specs/otlp/ says."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.web_server import serving

Value = str | int | float | bool


@dataclass(frozen=True)
class Received:
    """A span as it arrived; ids in hex, times in nanoseconds, events by name."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    error: bool
    attributes: dict[str, Value]
    resource: dict[str, Value]
    events: list[tuple[str, dict[str, Value]]]


@dataclass
class Receiver:
    """What has arrived so far."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def of(self, trace_id: str) -> dict[str, list[Received]]:
        """Return the spans of a trace by name."""
        found: dict[str, list[Received]] = {}
        for span in self.spans:
            if span.trace_id == trace_id:
                found.setdefault(span.name, []).append(span)
        return found

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.raw.append(body)
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            of_resource = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Received(
                            span.name,
                            span.kind,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            span.status.code == 2,
                            _values(span.attributes),
                            of_resource,
                            [(event.name, _values(event.attributes)) for event in span.events],
                        )
                    )
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _values(pairs: object) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in pairs:  # type: ignore[attr-defined]  # protobuf's generated classes have no types
        found[pair.key] = getattr(pair.value, pair.value.WhichOneof("value"))
    return found


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on loopback."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", receiver._take)
    async with serving(app) as receiver.url:
        yield receiver
