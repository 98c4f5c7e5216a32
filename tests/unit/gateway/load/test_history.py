"""Load over time: counters at two moments become what happened between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from roost.gateway.load.history import Sample, between, quantile, read
from roost.gateway.load.recorder import KEPT, LoadRecorder
from tests.support.fakes import fake_engine
from tests.support.gateway import quick_settings, served
from tests.support.net import eventually

INF = float("inf")
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}


def test_what_is_counted_apart_is_added_up() -> None:
    registry = CollectorRegistry()
    requests = Counter("roost_requests", "x", ["kind", "model", "endpoint", "status"], registry=registry)
    tokens = Counter("roost_tokens", "x", ["model", "direction"], registry=registry)
    first = Histogram("roost_time_to_first_token_seconds", "x", ["model"], buckets=(0.1, 1), registry=registry)
    Gauge("roost_in_flight", "x", registry=registry).set(3)
    for model, status in (("a", "200"), ("b", "200"), ("b", "499"), ("a", "502")):
        requests.labels("chat", model, "e", status).inc()
        tokens.labels(model, "in").inc(10)
        tokens.labels(model, "cached").inc(5)
        tokens.labels(model, "out").inc(2)
    for model, seconds in (("a", 0.05), ("b", 0.5), ("b", 5.0)):
        first.labels(model).observe(seconds)
    assert read(registry.collect(), 7.0) == Sample(7.0, 4, 2, 40, 8, {0.1: 1, 1.0: 2, INF: 3}, 3, None)
    Gauge("roost_queue_length", "x", ["queue"], registry=registry).labels("key").set(2)
    assert read(registry.collect(), 7.0).waiting == 2


def test_a_point_is_the_difference_and_never_less_than_nothing() -> None:
    before = Sample(100.0, 10, 1, 1000, 500, {1.0: 5, INF: 5}, 1, 0)
    after = Sample(110.0, 14, 2, 1100, 560, {1.0: 9, INF: 9}, 2, 1)
    point = between(before, after, {"e": 2}, 10.0)
    assert (point.seconds, point.requests, point.failed, point.tokens_in, point.tokens_out) == (10, 4, 1, 100, 60)
    assert (point.first_token_s, point.in_flight, point.waiting) == (0.5, 2, 1)
    back = between(after, before, {}, 10.0)
    assert (back.requests, back.tokens_in, back.first_token_s, back.seconds) == (0, 0, None, 10)


@pytest.mark.parametrize(
    ("counts", "part", "wanted"),
    [
        ({}, 0.5, None),
        ({1.0: 0, INF: 0}, 0.5, None),
        ({1.0: 2, INF: 2}, 0.5, 0.5),
        ({1.0: 0, 2.0: 4, INF: 4}, 0.5, 1.5),
        ({1.0: 1, 2.0: 1, INF: 4}, 0.95, 2.0),  # beyond the last bound
    ],
)
def test_quantiles_of_a_histogram(counts: dict[float, float], part: float, wanted: float | None) -> None:
    assert quantile(counts, part) == wanted


@given(st.lists(st.floats(0.001, 9.9), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], part: float) -> None:
    bounds = [0.01, 0.1, 1.0, 10.0]
    counts = {bound: float(sum(value <= bound for value in values)) for bound in [*bounds, INF]}
    found = quantile(counts, part)
    assert found is not None
    rank = part * len(values)
    reached = next(bound for bound in bounds if counts[bound] >= rank)
    below = max((bound for bound in bounds if bound < reached), default=0.0)
    assert below <= found <= reached


async def test_the_recorder_keeps_half_an_hour_of_what_was_served(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()
        async with gateway.client.post(f"{gateway.url}/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            assert answer.status == 200
            await answer.read()
        counted = gateway.gateway.metrics.registry
        await eventually(lambda: read(counted.collect(), 0).requests == 1, 5, "the request to be counted")
        gateway.gateway.load.look()
        async with gateway.client.get(f"{gateway.url}/roost/v1/load") as answer:
            document = await answer.json()
        [point] = document["points"]
        assert (point["requests"], point["failed"], point["in_flight"]) == (1, 0, 0)
        assert point["first_token_s"] > 0
        assert point["endpoints"] == {f"main@127.0.0.1:{engine.port}": 0}
        [endpoint] = document["now"]["endpoints"]
        assert (endpoint["slot"], endpoint["state"], endpoint["slots"]) == ("main", "ready", 2)
        async with gateway.client.get(f"{gateway.url}/roost/v1/load?since={point['at']}") as answer:
            assert (await answer.json())["points"] == []


def test_the_memory_of_the_recorder_is_bounded() -> None:
    recorder = LoadRecorder(CollectorRegistry(), lambda: ())
    for _ in range(KEPT + 10):
        recorder.look()
    points = recorder.document(0.0)["points"]
    assert isinstance(points, list)
    assert len(points) == KEPT


def test_whoever_asks_for_what_is_new_hears_of_it_whatever_the_clock_is_set_to() -> None:
    wall, ticks = [1000.0], [0.0]
    recorder = LoadRecorder(CollectorRegistry(), lambda: (), clock=lambda: wall[0], ticks=lambda: ticks[0])

    def look(jump: float = 0.0) -> None:
        ticks[0] += 10
        wall[0] += 10 + jump
        recorder.look()

    def news(since: float) -> list[tuple[float, float]]:
        points = recorder.document(since)["points"]
        assert isinstance(points, list)
        return [(point["at"], point["seconds"]) for point in points]

    look()
    assert news(0) == [(1010.0, 10.0)]
    look(jump=86400)
    assert news(1010.0) == [(87420.0, 10.0)]
    look(jump=-90000)
    assert news(87420.0) == [(-2570.0, 10.0)]
    assert news(-2570.0) == []
    assert len(news(99999.0)) == 3  # a service that began anew meanwhile: of its points that time was none
