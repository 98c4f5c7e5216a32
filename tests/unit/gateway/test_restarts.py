"""How often a stuck server may be replaced, and what a drained one gets asked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from roost.engines.base import Report, State
from roost.gateway.endpoints.endpoint import Endpoint, Member
from roost.gateway.metrics import Metrics
from roost.gateway.registry import Registry
from roost.gateway.warm.restarts import HOUR_S, MOST_AN_HOUR, PAUSE_S, Restarter, allowed
from tests.support.fakes import FakeEngine, FakeNomad, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually
from tests.unit.engines.test_llama_slots import resting
from tests.unit.gateway.test_proxy_faults import counted
from tests.unit.gateway.test_registry import Scripted

JOB = "roost-model-main"


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([], 0.0, True),
        ([0.0], PAUSE_S - 1, False),
        ([0.0], PAUSE_S, True),
        ([PAUSE_S * n for n in range(MOST_AN_HOUR)], HOUR_S - 1, False),
        ([PAUSE_S * n for n in range(MOST_AN_HOUR)], HOUR_S, True),
    ],
)
def test_the_rate_is_limited(before: list[float], now: float, *, expected: bool) -> None:
    assert allowed(before, now) is expected


@asynccontextmanager
async def one_server(folder: Path, *tags: str, **more: object) -> AsyncIterator[tuple[Served, FakeNomad, FakeEngine]]:
    nomad = FakeNomad(folder / "api.sock")
    await nomad.start()
    async with fake_engine(slot_files={}) as engine:
        nomad.plan(JOB, 1, ("127.0.0.1", engine.port), "model=tiny", *tags)
        settings = quick_settings(folder, nomad_socket=nomad.socket, NOMAD_TOKEN=SecretStr(nomad.token), **more)
        async with served(settings) as gateway:
            await gateway.ready()
            engine.slots = [resting(700)]
            yield gateway, nomad, engine
    await nomad.stop()


async def test_a_server_that_drains_saves_its_slots(tmp_path: Path) -> None:
    async with one_server(tmp_path, "keeps_slots=true") as (gateway, nomad, engine):
        nomad.set(JOB)  # the service is gone, the server lives on for its shutdown delay
        await eventually(lambda: engine.slot_actions[-1:] == ["save 0"], 5, "the slots to be saved")
        await counted(gateway, 700, "roost_slot_tokens_total", slot="main", action="saved")


async def test_a_server_that_keeps_no_slots_is_left_alone(tmp_path: Path) -> None:
    async with one_server(tmp_path) as (gateway, nomad, engine):
        nomad.set(JOB)
        await eventually(lambda: "ready" not in gateway.states(), 5, "the server to be gone")
        assert engine.slot_actions == []


async def test_a_server_that_cannot_save_is_stopped_all_the_same(tmp_path: Path) -> None:
    more = {"idle_stop_s": 0.3, "slots_timeout_s": 0.2}
    async with one_server(tmp_path, "keeps_slots=true", **more) as (_, nomad, engine):
        engine.mode = "stuck"
        await eventually(lambda: nomad.scaled == [(JOB, 0)], 10, "the stop")


async def test_slots_are_saved_before_an_idle_server_is_stopped(tmp_path: Path) -> None:
    async with one_server(tmp_path, "keeps_slots=true", idle_stop_s=1.0) as (gateway, nomad, engine):
        nomad.refusal = "job scaling blocked due to active deployment"
        await eventually(lambda: engine.slot_actions[-1:] == ["save 0"], 10, "the slots to be saved")
        await eventually(lambda: gateway.states() == ["ready"], 5, "the server to get requests again")
        assert nomad.scaled == []


async def test_nomad_may_refuse_to_replace(tmp_path: Path) -> None:
    more = {"canary_every_s": 0.1, "health_timeout_s": 0.3, "stuck_restart_s": 0.1}
    async with one_server(tmp_path, **more) as (gateway, nomad, engine):
        nomad.refusal = "Permission denied"
        engine.mode = "stuck"
        await counted(gateway, 1, "roost_restarts_total", slot="main", result="refused")
        assert nomad.stopped_allocations == []


def test_a_server_that_came_round_is_given_its_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        async def replace(self, allocation: str) -> None:
            raise AssertionError(allocation)

    stuck, ready = Report(State.DOWN, stuck=True), Report(State.READY, models=("m",))
    registry = Registry(lambda member: Scripted(member.base_url))
    member = Member("main", "http://a:1", job=JOB, allocation="one")
    endpoint = Endpoint(member, Scripted(member.base_url))
    restarter = Restarter(Nobody(), Metrics(registry.views), after_s=10.0)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for at, report in ((0.0, stuck), (5.0, ready), (11.0, stuck), (20.0, stuck)):
        now, endpoint.report = at, report
        restarter.probed(endpoint)
    assert not restarter._running
