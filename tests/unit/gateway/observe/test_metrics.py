"""Metrics: one place for names, bounded series, and what a request leaves in them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from roost.gateway.account.accounting import Tokens
from roost.gateway.balance.measures import Measures
from roost.gateway.metrics import Ended, Metrics
from roost.gateway.observe.errors import ERRORS, error_of
from roost.gateway.observe.series import Counts, Distribution, slots
from roost.ops import metric_names as names
from tests.support.fakes import FakeEngine, fake_engine
from tests.support.gateway import API_KEY, Served, quick_settings, served
from tests.support.net import eventually

CHAT = "/v1/chat/completions"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
VALUES = st.floats(0, 400, allow_nan=False)


def samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def everything_once(metrics: Metrics) -> None:
    """Touch every family."""
    gaps = slots(names.GAP_SECONDS)
    gaps[3] = 2
    metrics.finished(
        Ended("chat", "m", "s@e", 502, 1.0, "engine_failed", 0.5, 0.1, gaps, 0.03, Tokens(27, 7, cached=20))
    )
    metrics.failover("died")
    metrics.fell_back("router", "cold")
    metrics.started("main")
    metrics.routed("tiny", "suits", 0.001)
    metrics.stopped("main", "idle")
    metrics.restarted("main", "replaced")
    metrics.slot_tokens("main", "saved", 5)
    metrics.wrong_key()
    metrics.refused("alice", "tokens")
    metrics.invalid("alice", 400)
    metrics.usage_trouble("spool")
    metrics.certificate_ends("192.0.2.10:8443", 1_800_000_000.0)
    measures = Measures(metrics.registry)
    measures.chosen("prefix", 100)
    measures.refused("late")
    measures.opened("s@e")
    measures.retried("made")
    measures.broken("continued")


def test_every_family_and_label_is_in_the_one_list_and_nothing_else() -> None:
    metrics = Metrics(tuple)
    everything_once(metrics)
    shown = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    shown = {name: family for name, family in shown.items() if not name.endswith("_created")}
    assert shown.keys() == {spec.name for spec in names.OWN}
    for spec in names.OWN:
        family = shown[spec.name]
        assert family.type == spec.kind, spec.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.labels), sample
            assert sample.name in (*spec.samples, f"{spec.name}_created"), sample


def test_names_follow_prometheus_rules_and_are_named_once() -> None:
    found = [spec.name for spec in names.ALL]
    assert len(found) == len(set(found))
    for spec in (*names.OWN, *names.GATHERED):
        assert spec.name.startswith("roost_")
        assert not spec.name.endswith("_total")  # the text format adds it
        assert spec.about.endswith(".")
        assert (spec.kind == "histogram") == bool(spec.buckets) == spec.name.endswith("_seconds") or (
            spec in (names.ENGINE_SECONDS, names.CERTIFICATE_END)
        )


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=60))
def test_a_family_never_has_more_series_than_allowed_and_keeps_the_newest(labels: list[str]) -> None:
    spec = names.Spec("roost_tests", "counter", "Tests.", ("what",))
    registry = CollectorRegistry()
    counts = Counts(spec, registry, most=5)
    distribution = Distribution(names.Spec("roost_tests_seconds", "histogram", "Tests.", ("what",), (1,)), registry, 5)
    for label in labels:
        counts.add(label)
        distribution.observe(0.5, label)
    newest: list[str] = []
    for label in reversed(labels):
        if label not in newest and len(newest) < 5:
            newest.append(label)
    found = samples(generate_latest(registry).decode())
    for name in (spec.total, "roost_tests_seconds_count"):
        assert {sample.labels["what"] for sample in found if sample.name == name} == set(newest)


async def test_clients_cannot_make_series(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()

        async def series() -> int:
            async with gateway.client.get(f"{gateway.url}/metrics") as answer:
                return len(samples(await answer.text()))

        async def attack(number: int) -> None:
            bad = {**QUESTION, "model": f"invented-{number}"}
            headers = {"x-request-id": f"r-{number}", "authorization": f"Bearer {API_KEY}"}
            async with gateway.client.post(gateway.url + CHAT, json=bad, headers=headers) as answer:
                assert answer.status == 404
            async with gateway.client.get(f"{gateway.url}/nothing-{number}") as answer:
                assert answer.status == 404
            wrong = {"authorization": f"Bearer wrong-{number}"}
            async with gateway.client.get(f"{gateway.url}/v1/key", headers=wrong) as answer:
                assert answer.status in (401, 429)

        await attack(0)
        before = await series()
        for number in range(1, 15):
            await attack(number)
        assert await series() == before


@given(st.lists(VALUES, max_size=50), st.lists(VALUES, max_size=50))
def test_a_distribution_is_what_prometheus_own_histogram_is(singly: list[float], together: list[float]) -> None:
    spec = names.DURATION
    mine, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution(spec, mine)
    histogram = Histogram(spec.name, spec.about, spec.labels, buckets=spec.buckets, registry=theirs)
    for value in singly:
        distribution.observe(value, "m", "e")
    counted = slots(spec.buckets)
    for value in together:
        counted[next((n for n, bound in enumerate(spec.buckets) if value <= bound), len(spec.buckets))] += 1
    if together:
        distribution.merge(counted, sum(together), "m", "e")
    for value in (*singly, *together):
        histogram.labels("m", "e").observe(value)

    def seen(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
        return {
            (sample.name, sample.labels.get("le", "")): sample.value
            for sample in samples(generate_latest(registry).decode())
            if not sample.name.endswith("_created")
        }

    assert seen(mine) == pytest.approx(seen(theirs))


async def value(gateway: Served, name: str, **labels: str) -> float:
    async with gateway.client.get(f"{gateway.url}/metrics") as answer:
        found = samples(await answer.text())
    return sum(sample.value for sample in found if sample.name == name and labels.items() <= sample.labels.items())


def endpoint_of(engine: FakeEngine) -> str:
    return f"main@127.0.0.1:{engine.port}"


async def test_a_stream_leaves_first_token_gaps_wait_and_tokens(tmp_path: Path) -> None:
    async with (
        fake_engine(mode="slow") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway,
    ):
        await gateway.ready()
        asked = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
        async with gateway.client.post(gateway.url + CHAT, json=asked) as answer:
            await answer.content.readany()
            assert await value(gateway, names.IN_FLIGHT.name) == 1
            assert await value(gateway, names.ENDPOINT_BUSY.name, endpoint=endpoint_of(engine)) == 1
            engine.go.set()
            await answer.read()
        who = {"model": "tiny", "endpoint": endpoint_of(engine)}

        async def over() -> bool:
            return await value(gateway, names.REQUESTS.total, **who, kind="chat", status="200") == 1

        await eventually(over, 5, "the request to be counted")
        assert await value(gateway, f"{names.FIRST_TOKEN.name}_count", **who) == 1
        assert await value(gateway, f"{names.DURATION.name}_count", **who) == 1
        assert await value(gateway, f"{names.QUEUE_WAIT.name}_count", model="tiny") == 1
        assert await value(gateway, f"{names.INTER_TOKEN.name}_count", **who) >= 1
        assert await value(gateway, f"{names.INTER_TOKEN.name}_sum", **who) > 0
        assert await value(gateway, names.TOKENS.total, **who, direction="in") == 27
        assert await value(gateway, names.TOKENS.total, **who, direction="out") == 7
        assert await value(gateway, names.ERRORS.total) == 0
        assert await value(gateway, names.ENDPOINT_UP.name, endpoint=endpoint_of(engine), slot="main") == 1
        assert await value(gateway, names.ENDPOINT_SLOTS.name, endpoint=endpoint_of(engine)) == 2


async def test_a_request_that_waits_for_a_model_is_in_the_queue_and_its_error_has_a_kind(tmp_path: Path) -> None:
    async with (
        fake_engine(mode="loading") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, wait_s=30)) as gateway,
    ):

        async def waits() -> bool:
            return await value(gateway, names.QUEUE.name, queue="model") == 1

        async def ask() -> int:
            async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "model": "main"}) as answer:
                return answer.status

        asking = asyncio.create_task(ask())
        await eventually(waits, 5, "the request to wait")
        engine.mode = "error"
        assert await asking == 502
        assert await value(gateway, names.QUEUE.name, queue="model") == 0
        assert await value(gateway, names.ERRORS.total, error="engine_failed", model="tiny") == 1
        assert await value(gateway, f"{names.QUEUE_WAIT.name}_sum", model="tiny") > 0


@given(st.integers(0, 999), st.one_of(st.none(), st.text(max_size=30)), st.booleans())
def test_errors_are_a_closed_set(status: int, code: str | None, cut: bool) -> None:
    found = error_of(status, code, cut=cut)
    assert not found or found in ERRORS
    if 200 <= status < 300 and not cut and code != "context_length_exceeded":
        assert not found
    elif status >= 400:
        assert found
