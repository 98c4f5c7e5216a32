"""A model whose machine is lost is waited for until its spare answers, by every gateway. Nomad is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.fakes import FakeEngine, FakeNomad, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually, free_port
from tests.unit.gateway.test_proxy_faults import ask, code_of

CODING = "roost-model-coding"
WAIT_S, MOVE_S = 0.3, 10.0


@asynccontextmanager
async def lost(folder: Path, *tags: str, **more: object) -> AsyncIterator[tuple[Served, FakeNomad, FakeEngine]]:
    """Run a gateway whose only model is registered where nothing answers any more; its spare is not registered yet."""
    nomad = FakeNomad(folder / "api.sock")
    await nomad.start()
    async with fake_engine(model="small") as spare:
        nomad.plan(CODING, 1, ("127.0.0.1", free_port()), "model=small", "slot=coding", *tags)
        settings = quick_settings(
            folder,
            nomad_socket=nomad.socket,
            NOMAD_TOKEN=SecretStr(nomad.token),
            **{"wait_s": WAIT_S, "move_wait_s": MOVE_S, "fallback_after_s": 0.1, **more},
        )
        async with served(settings) as gateway:
            registry = gateway.gateway.registry
            await eventually(lambda: bool(registry.planned()) and gateway.states() == ["down"], 5, "the loss is known")
            yield gateway, nomad, spare
    await nomad.stop()


async def test_a_request_waits_for_the_spare_longer_than_for_a_server_that_may_not_come_back(tmp_path: Path) -> None:
    async with lost(tmp_path, "moves=true") as (gateway, nomad, spare):
        asked = asyncio.create_task(ask(gateway, model="coding"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 3 * WAIT_S)
        nomad.set(CODING)  # Nomad gave the machine up: the job is wanted, and nothing is registered
        await eventually(lambda: gateway.states() == ["loading"], 5, "the registration is gone")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 2 * WAIT_S)
        nomad.set(CODING, ("127.0.0.1", spare.port))
        status, document, _ = await asyncio.wait_for(asked, 5)
        assert (status, document["model"]) == (200, "small")


async def test_a_model_that_no_other_machine_may_run_is_refused_as_before(tmp_path: Path) -> None:
    async with lost(tmp_path) as (gateway, _, _spare):
        status, document, _ = await asyncio.wait_for(ask(gateway, model="coding"), MOVE_S / 2)
        assert (status, code_of(document)[0]) == (503, "model_unavailable")


async def test_nobody_waits_for_ever_for_a_spare(tmp_path: Path) -> None:
    async with lost(tmp_path, "moves=true", move_wait_s=2 * WAIT_S) as (gateway, _, _spare):
        status, document, _ = await asyncio.wait_for(ask(gateway, model="coding"), MOVE_S / 2)
        assert (status, code_of(document)[0]) == (503, "model_unavailable")


async def test_who_says_how_long_to_wait_waits_so_long(tmp_path: Path) -> None:
    async with lost(tmp_path, "moves=true") as (gateway, _, _spare):
        body = {"model": "coding", "messages": [{"role": "user", "content": "?"}]}
        headers = {"X-Roost-Wait": "0.2"}
        asked = gateway.client.post(gateway.url + "/v1/chat/completions", json=body, headers=headers)
        async with asyncio.timeout(MOVE_S / 2), asked as answer:
            assert answer.status == 503
