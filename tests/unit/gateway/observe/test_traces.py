"""Traces of real requests, as a receiver of OTLP gets them, decoded by OpenTelemetry's own protobuf classes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, service_attributes

from roost.gateway.observe import trace_names as names
from roost.ops.errors import RoostError
from tests.support.fakes import FakeEngine, fake_engine
from tests.support.gateway import REPOSITORY, Served, quick_settings, served
from tests.support.net import eventually
from tests.support.otlp import Received, Receiver, otlp_receiver

CHAT = "/v1/chat/completions"
PROMPT = "What is the capital of Erewhon?"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}]}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROOT = f"POST {CHAT}"


@asynccontextmanager
async def traced(folder: Path, *engines: FakeEngine, **more: object) -> AsyncIterator[tuple[Served, Receiver]]:
    """Run a gateway that sends its traces to a receiver."""
    urls = ",".join(engine.url for engine in engines)
    async with otlp_receiver() as receiver:
        settings = quick_settings(folder, static_endpoints=urls, otel_endpoint=receiver.url, **more)
        async with served(settings) as gateway:
            await gateway.ready(len(engines))
            yield gateway, receiver


async def ask(gateway: Served, headers: dict[str, str] | None = None, **more: object) -> tuple[int, str]:
    async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, **more}, headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers["x-request-id"]


async def spans_of(gateway: Served, receiver: Receiver, trace_id: str, count: int) -> dict[str, list[Received]]:
    """Wait until the trace has so many spans; ends the gateway's wait for a full batch."""
    assert gateway.gateway.tracer

    def there() -> bool:
        return sum(map(len, receiver.of(trace_id).values())) >= count

    await eventually(there, 15, f"{count} spans")
    found = receiver.of(trace_id)
    assert sum(map(len, found.values())) == count
    return found


def test_our_names_are_those_of_the_conventions() -> None:
    known = {
        value
        for module in (gen_ai_attributes, error_attributes, http_attributes, server_attributes, service_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str) and "." in value}
    ours -= {value for value in ours if value.startswith("roost.")} | {names.DEFAULT_PROVIDER}
    assert ours - {names.SERVICE_INSTANCE} <= known  # that one is still incubating
    assert set(names.GEN_AI) <= known
    operations = {item.value for item in gen_ai_attributes.GenAiOperationNameValues}
    assert set(names.OPERATIONS.values()) <= operations


async def test_a_streamed_request_is_a_tree_of_spans_in_the_callers_trace(tmp_path: Path) -> None:
    async with fake_engine() as engine, traced(tmp_path, engine) as (gateway, receiver):
        status, request_id = await ask(
            gateway, {"traceparent": f"00-{TRACE}-{SPAN}-01"}, stream=True, stream_options={"include_usage": True}
        )
        assert status == 200
        found = await spans_of(gateway, receiver, TRACE, 4)
        (root,), (queue,), (route,), (attempt,) = (found[name] for name in (ROOT, "queue", "route", "chat tiny"))
        assert root.parent_id == SPAN
        assert {queue.parent_id, route.parent_id, attempt.parent_id} == {root.span_id}
        assert engine.headers[-1]["traceparent"] == f"00-{TRACE}-{attempt.span_id}-01"
        assert root.began <= queue.began <= queue.ended <= route.began <= route.ended <= attempt.began
        assert attempt.began < attempt.ended <= root.ended
        assert (root.kind, queue.kind, attempt.kind) == (2, 1, 3)  # SERVER, INTERNAL, CLIENT
        usage = {names.INPUT_TOKENS: 27, names.OUTPUT_TOKENS: 7, names.CACHED_TOKENS: 0, names.OPERATION: "chat"}
        assert usage.items() <= attempt.attributes.items()
        assert attempt.attributes[names.PROVIDER] == "llama.cpp"
        assert attempt.attributes[names.SERVER_PORT] == engine.port
        assert 0 < float(root.attributes[names.FIRST_CHUNK]) < 5
        assert root.attributes[names.HTTP_STATUS] == 200
        assert root.attributes[names.REQUEST_ID] == request_id
        assert [event for event, _ in root.events] == [names.FIRST_CONTENT]
        assert root.resource[names.SERVICE_NAME] == names.SERVICE
        assert not any(span.error for spans in found.values() for span in spans)


async def test_a_failover_is_an_event_and_an_attempt_that_failed(tmp_path: Path) -> None:
    async with fake_engine() as one, fake_engine() as other, traced(tmp_path, one, other) as (gateway, receiver):
        await ask(gateway)  # the same question goes to the same one again
        dying, living = (one, other) if one.chats else (other, one)
        dying.mode = "drop"
        status, request_id = await ask(gateway)  # an id of our own making is the trace's, too
        assert status == 200
        found = await spans_of(gateway, receiver, request_id, 6)
        (root,), (lost, won) = found[ROOT], sorted(found["chat tiny"], key=lambda span: span.began)
        assert len(found["route"]) == 2
        assert (lost.error, won.error, root.error) == (True, False, False)
        ((name, said),) = root.events
        assert name == names.FAILOVER
        assert said == {names.ENDPOINT: f"main@127.0.0.1:{dying.port}", names.REASON: "it closed the connection"}
        assert dying.headers[-1]["traceparent"] == f"00-{request_id}-{lost.span_id}-01"
        assert living.headers[-1]["traceparent"] == f"00-{request_id}-{won.span_id}-01"


async def test_an_error_is_one_in_its_trace_and_no_prompt_is_in_any(tmp_path: Path) -> None:
    async with fake_engine() as engine, traced(tmp_path, engine) as (gateway, receiver):
        engine.mode = "error"
        _, failed = await ask(gateway)
        _, unknown = await ask(gateway, model="nobody-knows")
        found = await spans_of(gateway, receiver, failed, 4)
        assert found[ROOT][0].error
        assert found[ROOT][0].attributes[names.ERROR_TYPE] == "engine_failed"
        assert found["chat tiny"][0].attributes[names.ERROR_TYPE] == "engine_failed"
        missing = await spans_of(gateway, receiver, unknown, 3)
        assert missing[ROOT][0].attributes[names.ERROR_TYPE] == "not_found"
        everything = b"".join(receiver.raw)
        assert b"Erewhon" not in everything
        assert b"Paris" not in everything
        assert b"roost-key-of-the-tests" not in everything


async def test_what_is_not_sampled_is_not_sent_but_its_context_goes_on(tmp_path: Path) -> None:
    async with fake_engine() as engine, traced(tmp_path, engine, otel_sample_ratio=0.0) as (gateway, receiver):
        await ask(gateway, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
        assert engine.headers[-1]["traceparent"] == f"00-{TRACE}-{SPAN}-00"
        await ask(gateway)
        assert "traceparent" not in engine.headers[-1]
        assert gateway.gateway.tracer
    assert receiver.spans == []


async def test_a_receiver_that_is_away_harms_no_request(tmp_path: Path) -> None:
    settings = {"otel_endpoint": "http://127.0.0.1:9"}
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, **settings)) as gateway,
    ):
        await gateway.ready()
        for _ in range(20):
            assert (await ask(gateway))[0] == 200


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys; import roost.cli.serve; "
        "print(sorted({name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter',"
        " 'google.protobuf', 'requests', 'urllib3'))}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(REPOSITORY / "app")}, capture_output=True, check=True
    )
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize("endpoint", ["receiver:4318", "ftp://x", "http://user:secret@x", "http://"])
def test_an_endpoint_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    from roost.gateway.settings import load_settings

    monkeypatch.setenv("ROOST_OTEL_ENDPOINT", endpoint)
    with pytest.raises(RoostError, match="ROOST_OTEL_ENDPOINT") as caught:
        load_settings()
    assert not re.search("secret", str(caught.value))
