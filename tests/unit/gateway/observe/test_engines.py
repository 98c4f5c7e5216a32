"""What model servers and workers say of themselves, under the fleet's labels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from roost.gateway.observe.allocations import Allocated, allocated
from roost.gateway.observe.engines import Gathered, Prefixes, Scraped, families_of, parse
from roost.gateway.task_api import TaskApi
from roost.ops import metric_names as names
from tests.support.fakes import fake_engine
from tests.support.gateway import Served, quick_settings, served

# As build 11669 of llama-server writes it.
LLAMA = """# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 31
# HELP llamacpp:n_tokens_max Largest observed sequence length (prompt + generation)
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 34
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
"""
OTHER = 'vllm:num_requests_running{model="own-name",slot="x"} 3\nroost_requests_total 5\n'
LABELS = {"model": "tiny", "slot": "main", "node": "", "endpoint": ""}


async def scrape(gateway: Served) -> list[Sample]:
    async with gateway.client.get(f"{gateway.url}/metrics/engines") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text = await answer.text()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float | None:
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) <= 1, (name, labels)
    return found[0] if found else None


async def test_servers_are_asked_with_their_key_and_get_the_fleets_labels(tmp_path: Path) -> None:
    async with fake_engine(metrics=LLAMA) as one, fake_engine(metrics=OTHER, model="small") as other:
        urls = f"{one.url},router={other.url}"
        # Probed once only: a probe asks for the same page now and then.
        settings = quick_settings(tmp_path, static_endpoints=urls, engine_metrics_s=60, probe_every_s=60)
        async with served(settings) as gateway:
            await gateway.ready(2)
            before = one.scrapes, other.scrapes  # its load is asked for when a server is first seen
            found = await scrape(gateway)
            labels = {**LABELS, "endpoint": f"main@127.0.0.1:{one.port}"}
            assert value(found, names.LLAMA_PROMPT.total, **labels) == 31
            assert value(found, "llamacpp:n_tokens_max", **labels) == 34
            assert value(found, names.LLAMA_BUSY.name, **labels) == 2
            theirs = {**LABELS, "model": "small", "slot": "router", "endpoint": f"router@127.0.0.1:{other.port}"}
            renamed = {**theirs, "exported_model": "own-name", "exported_slot": "x"}
            assert value(found, "vllm:num_requests_running", **renamed) == 3
            assert not [sample for sample in found if sample.name == "roost_requests_total"]
            assert [s.value for s in found if s.name == names.ENGINE_UP.name] == [1, 1]
            for _ in range(5):
                await scrape(gateway)
            assert (one.scrapes - before[0], other.scrapes - before[1]) == (1, 1)  # however often somebody asks


async def test_a_server_without_that_page_is_left_out_and_one_that_writes_rubbish_is_down(tmp_path: Path) -> None:
    async with fake_engine() as without, fake_engine(metrics="llamacpp:x{ 5") as broken:
        urls = f"{without.url},router={broken.url}"
        settings = quick_settings(tmp_path, static_endpoints=urls, engine_metrics_s=0, probe_every_s=60)
        async with served(settings) as gateway:
            await gateway.ready(2)
            before = without.scrapes, broken.scrapes
            for _ in range(3):
                found = await scrape(gateway)
            ((slot, up),) = [(s.labels["slot"], s.value) for s in found if s.name == names.ENGINE_UP.name]
            assert (slot, up) == ("router", 0)
            assert (without.scrapes - before[0], broken.scrapes - before[1]) == (1, 3)


async def test_a_server_that_is_not_ready_is_not_asked(tmp_path: Path) -> None:
    async with (
        fake_engine(metrics=LLAMA, mode="loading") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, engine_metrics_s=0)) as gateway,
    ):
        assert await scrape(gateway) == []
        assert engine.scrapes == 0


async def test_only_who_may_watch_sees_it(tmp_path: Path) -> None:
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway,
        aiohttp.ClientSession() as stranger,
        stranger.get(f"{gateway.url}/metrics/engines") as answer,
    ):
        assert answer.status == 401


@given(st.text(max_size=200))
def test_any_text_of_a_server_is_survived(text: str) -> None:
    try:
        families = parse(text)
    except ValueError:
        return
    labels = {**LABELS, "endpoint": "main@x:1"}
    for family in families_of(Gathered([Scraped(labels, 0.1, families, up=True)])):
        for sample in family.samples:
            assert labels.items() <= sample.labels.items()


def test_more_series_than_a_server_can_need_are_refused() -> None:
    many = "".join(f'x{{n="{n}"}} 1\n' for n in range(names.MOST_SERIES + 1))
    with pytest.raises(ValueError, match="series"):
        parse(many)


def test_so_many_are_refused_before_they_are_read() -> None:
    with pytest.raises(ValueError, match="series"):
        parse("no text of Prometheus{\n" * (names.MOST_SERIES + 1))


def stub(identity: str, job: str, status: str = "running", **more: object) -> dict[str, object]:
    tasks = {"engine": {"Restarts": 2}} if "model" in job else {"worker": {"Restarts": 0}}
    return {"ID": identity, "JobID": job, "NodeName": "box", "ClientStatus": status, "TaskStates": tasks, **more}


ALLOCATIONS = [
    stub("a1", "roost-model-main", DesiredStatus="run"),
    stub("a2", "roost-rpc-main-0", DesiredStatus="run", NodeName="second"),
    stub("a3", "roost-model-main", "failed", DesiredStatus="run", NextAllocation="a1"),
    stub("a4", "roost-model-old", "complete", DesiredStatus="stop"),
    stub("a5", "somebody-elses", DesiredStatus="run"),
]
STATS = {
    "a1": {"Tasks": {"engine": {"ResourceUsage": {"MemoryStats": {"RSS": 700}, "CpuStats": {"Percent": 150.0}}}}},
    "a2": {"Tasks": {"worker": {"ResourceUsage": {"MemoryStats": {"RSS": 0, "Usage": 900}, "CpuStats": None}}}},
}


@asynccontextmanager
async def nomad(folder: Path) -> AsyncIterator[TaskApi]:
    """Answer as Nomad's API documentation says, on a Unix socket."""

    async def allocations(_request: web.Request) -> web.Response:
        return web.json_response(ALLOCATIONS)

    async def jobs(request: web.Request) -> web.Response:
        assert request.query["prefix"] == "roost-rpc-"
        return web.json_response([{"ID": "roost-rpc-main-0"}, {"ID": "roost-rpc-main-1"}, {"ID": "g", "Stop": True}])

    async def stats(request: web.Request) -> web.Response:
        found = STATS.get(request.match_info["id"])
        return web.json_response(found) if found else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/v1/allocations", allocations)
    app.router.add_get("/v1/jobs", jobs)
    app.router.add_get("/v1/client/allocation/{id}/stats", stats)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    socket = folder / "api.sock"
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield TaskApi(socket, "token")
    finally:
        await runner.cleanup()


async def test_workers_are_measured_by_nomad_and_a_lost_one_is_down(tmp_path: Path) -> None:
    async with nomad(tmp_path) as api:
        found = await allocated(api, "roost-model-", "roost-rpc-")
    assert found == [
        Allocated("roost-model-main", "engine", "box", "a1", up=True, restarts=2, memory=700, cores=1.5),
        Allocated("roost-rpc-main-0", "worker", "second", "a2", up=True, restarts=0, memory=900),
        Allocated("roost-rpc-main-1", "", "", "", up=False),
    ]
    assert await allocated(TaskApi(tmp_path / "nobody", ""), "roost-model-", "roost-rpc-") == []


def test_a_workers_series_say_whose_layers_it_holds() -> None:
    prefixes = Prefixes("roost-model-", "roost-rpc-")
    assert [prefixes.slot(job) for job in ("roost-rpc-coding-2-0", "roost-model-coding-2")] == ["coding-2"] * 2
    job = Allocated("roost-rpc-main-0", "worker", "second", "a2", up=True, memory=900)
    labels = {"job": job.job, "task": job.task, "slot": "main", "node": job.node, "model": "tiny"}
    found = {family.name: family.samples for family in families_of(Gathered([], [(job, labels)]))}
    assert found.keys() == {names.JOB_UP.name, names.JOB_RESTARTS.name, names.JOB_MEMORY.name}
    assert found[names.JOB_MEMORY.name][0].labels == labels
