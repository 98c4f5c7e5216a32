"""Cold models are started, idle ones stopped, lighter ones answer meanwhile. Nomad and model servers are scripted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.fakes import FakeEngine, FakeNomad, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually
from tests.unit.gateway.test_access import key, write_document
from tests.unit.gateway.test_proxy_faults import CHAT, ask, code_of, counted, metric, stream

MAIN, SPECIALIST = "roost-model-main", "roost-model-specialist"
SMALL, BIG = 4 << 30, 8 << 30


@asynccontextmanager
async def fleet(
    folder: Path, *, running: tuple[int, int] = (1, 0), pool: int = 16 << 30, **more: object
) -> AsyncIterator[tuple[Served, FakeNomad, FakeEngine, FakeEngine]]:
    """Run the gateway in front of a small main model and a big specialist, `running` as said, in one pool."""
    nomad = FakeNomad(folder / "api.sock")
    await nomad.start()
    async with fake_engine(model="small") as small, fake_engine(model="big") as big:
        for job, engine, count, size in ((MAIN, small, running[0], SMALL), (SPECIALIST, big, running[1], BIG)):
            tags = [f"model={engine.model}", f"memory=gpu:{size}"]
            nomad.plan(job, count, ("127.0.0.1", engine.port), *tags)
        settings = quick_settings(
            folder,
            nomad_socket=nomad.socket,
            NOMAD_TOKEN=SecretStr(nomad.token),
            memory_pools=f"gpu={pool}",
            fallback_after_s=0.2,
            **more,
        )
        async with served(settings) as gateway:
            await gateway.ready(sum(running))
            await eventually(lambda: len(gateway.gateway.registry.planned()) == 2, 5, "the jobs")
            yield gateway, nomad, small, big
    await nomad.stop()


async def states(gateway: Served) -> dict[str, str]:
    """Return the state of each model as `/v1/models` says it."""
    async with gateway.client.get(gateway.url + "/v1/models") as answer:
        return {entry["id"]: entry["roost"]["state"] for entry in (await answer.json())["data"]}


async def test_a_cold_model_is_shown_and_started_by_the_first_who_asks(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (gateway, nomad, _, big):
        assert await states(gateway) == {"small": "ready", "big": "cold"}
        async with gateway.client.get(gateway.url + "/readyz") as answer:
            document = await answer.json()
        assert document["slots"]["specialist"] == {"ready": 0, "cold": 1, "loading": 0, "down": 0}
        assert document["reasons"] == []
        async with gateway.client.post(
            gateway.url + "/v1/chat/completions",
            json={"model": "big", "messages": [{"role": "user", "content": "?"}]},
            headers={"X-Roost-Fallback": "never"},
        ) as answer:
            assert answer.status == 200
            assert answer.headers["X-Roost-Model"] == "big"
            assert "X-Roost-Fallback-For" not in answer.headers
        assert nomad.scaled == [(SPECIALIST, 1)]
        assert len(big.chats) == 1
        await counted(gateway, 1, "roost_model_starts_total", slot="specialist")
        assert await states(gateway) == {"small": "ready", "big": "ready"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_lighter_model_answers_while_the_chosen_one_starts(tmp_path: Path, *, streamed: bool) -> None:
    async with fleet(tmp_path) as (gateway, nomad, small, _):
        nomad.starts = False
        if streamed:
            await stream(gateway, model="specialist")
        else:
            status, document, headers = await ask(gateway, model="specialist")
            assert (status, document["model"], headers["x-roost-model"]) == (200, "small", "small")
            assert headers["x-roost-fallback-for"] == "specialist"
            assert headers["x-roost-fallback-reason"] == "cold"
        assert small.chats[-1]["model"] == "small"
        await eventually(lambda: nomad.scaled == [(SPECIALIST, 1)], 5, "the start")
        await counted(gateway, 1, "roost_fallbacks_total", slot="main", reason="cold")


async def test_no_lighter_model_answers_when_the_client_forbids_it(tmp_path: Path) -> None:
    async with fleet(tmp_path, start_wait_s=0.6, wait_s=0.6) as (gateway, nomad, small, _):
        nomad.starts = False
        async with gateway.client.post(
            gateway.url + "/v1/chat/completions",
            json={"model": "big", "messages": [{"role": "user", "content": "?"}]},
            headers={"X-Roost-Fallback": "never"},
        ) as answer:
            assert answer.status == 503
            assert code_of(await answer.json())[0] == "model_unavailable"
        assert small.chats == []


async def test_nothing_stands_in_that_the_key_may_not_use(tmp_path: Path) -> None:
    document = write_document(tmp_path, key("alice", models=["big"]), key("bob"))
    async with fleet(tmp_path, keys_file=document, wait_s=0.4, start_wait_s=0.4) as (gateway, nomad, small, _):
        nomad.starts = False
        answers = {}
        for who in ("alice", "bob"):
            headers = {"Authorization": f"Bearer {who}"}
            body = {"model": "big", "messages": [{"role": "user", "content": "?"}]}
            async with gateway.client.post(gateway.url + CHAT, json=body, headers=headers) as answer:
                answers[who] = answer.status
        assert answers == {"alice": 503, "bob": 200}
        assert len(small.chats) == 1


async def test_the_heavier_model_does_not_stand_in_for_the_lighter_unless_told_to(tmp_path: Path) -> None:
    async with fleet(tmp_path, running=(0, 1), wait_s=0.4, start_wait_s=0.4) as (gateway, nomad, _, _):
        nomad.starts = False
        assert (await ask(gateway, model="auto"))[0] == 503
    order = {"main": ["specialist"]}
    async with fleet(tmp_path, running=(0, 1), model_fallbacks=order) as (gateway, nomad, _, _):
        nomad.starts = False
        status, document, headers = await ask(gateway, model="auto")
        assert (status, document["model"], headers["x-roost-fallback-for"]) == (200, "big", "auto")


async def test_the_idle_model_makes_room_and_comes_back(tmp_path: Path) -> None:
    async with fleet(tmp_path, pool=BIG) as (gateway, nomad, _, _):
        status, document, _ = await ask(gateway, model="big")  # main is stopped for it, so nobody else can answer
        assert (status, document["model"]) == (200, "small")  # main answers this one, then makes room
        await eventually(lambda: nomad.scaled == [(MAIN, 0), (SPECIALIST, 1)], 10, "main to make room")
        await eventually(lambda: "ready" in gateway.states(), 5, "the big one")
        assert await metric(gateway, "roost_model_stops_total", slot="main", reason="room") == 1
        status, document, _ = await ask(gateway, model="auto")
        assert (status, document["model"]) == (200, "small")
        assert nomad.scaled[2:] == [(SPECIALIST, 0), (MAIN, 1)]


async def test_turns_between_two_models_do_not_swap_them_each_time(tmp_path: Path) -> None:
    async with fleet(tmp_path, pool=BIG, min_stay_s=6.0) as (gateway, nomad, _, _):
        assert (await ask(gateway, model="big"))[0] == 200  # by the small one, which was there before: no stay
        await eventually(lambda: nomad.scaled == [(MAIN, 0), (SPECIALIST, 1)], 10, "main to make room")
        await eventually(lambda: "ready" in gateway.states(), 5, "the big one")
        warm = time.monotonic()
        asking = asyncio.create_task(ask(gateway, model="auto"))
        registry = gateway.gateway.registry
        await eventually(lambda: any("stays for a while" in v.reason for v in registry.views()), 5, "the reason")
        assert (await ask(gateway, model="big"))[1]["model"] == "big"  # it goes on answering meanwhile
        assert nomad.scaled[2:] == []
        status, document, _ = await asking
        assert (status, document["model"]) == (200, "small")
        assert nomad.scaled[2:] == [(SPECIALIST, 0), (MAIN, 1)]
        assert time.monotonic() - warm > 3  # seen ready by the keeper a little before or after us


async def test_a_model_at_work_is_not_stopped(tmp_path: Path) -> None:
    async with fleet(tmp_path, pool=BIG) as (gateway, nomad, small, _):
        small.mode = "slow"
        working = asyncio.create_task(stream(gateway, model="auto"))
        await eventually(lambda: len(small.chats) == 1, 5, "the stream")
        waiting = asyncio.create_task(ask(gateway, model="big"))
        registry = gateway.gateway.registry
        await eventually(
            lambda: any("in use by other" in view.reason for view in registry.views()), 5, "the reason to be told"
        )
        assert nomad.scaled == []
        small.go.set()
        await working
        await waiting
        await eventually(lambda: (MAIN, 0) in nomad.scaled, 5, "main to make room")


async def test_idle_models_are_stopped_and_pinned_ones_are_not(tmp_path: Path) -> None:
    async with fleet(tmp_path, running=(1, 1), idle_stop_s=4.0) as (gateway, nomad, _, _):
        nomad.jobs[MAIN].tags.append("keep_warm=true")
        nomad.jobs[MAIN].version += 1
        nomad.end_waiting()
        nomad.index += 1
        nomad.end_waiting()
        await eventually(lambda: (SPECIALIST, 0) in nomad.scaled, 10, "the idle one to be stopped")
        await counted(gateway, 1, "roost_model_stops_total", slot="specialist", reason="idle")
        assert await states(gateway) == {"small": "ready", "big": "cold"}


async def test_nomad_may_refuse(tmp_path: Path) -> None:
    async with fleet(tmp_path, start_wait_s=1.0, wait_s=1.0) as (gateway, nomad, small, _):
        small.model = "small"
        nomad.refusal = "job scaling blocked due to active deployment"
        async with gateway.client.post(
            gateway.url + "/v1/chat/completions",
            json={"model": "big", "messages": [{"role": "user", "content": "?"}]},
            headers={"X-Roost-Fallback": "never"},
        ) as answer:
            assert answer.status == 503
            assert "failed to start" in code_of(await answer.json())[1]


async def test_a_job_that_is_removed_while_it_is_started_harms_nobody(tmp_path: Path) -> None:
    async with fleet(tmp_path, start_wait_s=1.0, wait_s=1.0) as (gateway, nomad, _, _):
        keeper, registry = gateway.gateway.keeper, gateway.gateway.registry

        removed = asyncio.Event()

        class Removing:
            async def scale(self, job: str, count: int, why: str) -> None:
                nomad.jobs.pop(SPECIALIST)
                nomad.set(SPECIALIST)
                await eventually(lambda: SPECIALIST not in registry.planned(), 5, f"{job} to go ({count}, {why})")
                removed.set()

        keeper._operator = Removing()
        keeper.want(SPECIALIST, 60)
        await asyncio.wait_for(removed.wait(), 10)
        assert (await ask(gateway, model="auto"))[0] == 200
        assert registry.fault == ""


async def test_a_stopped_model_that_somebody_else_started_again_gets_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.gateway.warm.keeper.SEEN_WITHIN_S", 0.3)
    async with fleet(tmp_path, running=(1, 1)) as (gateway, nomad, _, _):

        class Deaf:
            async def scale(self, job: str, count: int, why: str) -> None:
                assert why
                nomad.scaled.append((job, count))  # and a playbook sets it back before anybody sees it

        keeper, registry = gateway.gateway.keeper, gateway.gateway.registry
        keeper._operator = Deaf()
        keeper._policy = replace(keeper._policy, idle_stop_s=0.01)
        await eventually(lambda: (SPECIALIST, 0) in nomad.scaled, 5, "the stop")
        keeper._policy = replace(keeper._policy, idle_stop_s=0.0)
        await eventually(lambda: not registry.is_closed(SPECIALIST), 5, "the job to be open again")
        status, document, _ = await ask(gateway, model="big")
        assert (status, document["model"]) == (200, "big")


async def test_a_stuck_server_is_replaced_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, stuck_restart_s=0.1, canary_every_s=0.1, health_timeout_s=0.3) as (
        gateway,
        nomad,
        small,
        _,
    ):
        small.mode = "stuck"
        await eventually(lambda: nomad.stopped_allocations == [f"allocation of {MAIN}"], 10, "the replacement")
        await counted(gateway, 1, "roost_restarts_total", slot="main", result="replaced")
        await counted(gateway, 1, "roost_restarts_total", slot="main", result="limited")
        assert len(nomad.stopped_allocations) == 1
