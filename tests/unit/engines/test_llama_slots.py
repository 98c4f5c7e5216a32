"""Progress of slots, and what they know saved and restored; the server is scripted (tests/support/fakes.py)."""

from __future__ import annotations

import asyncio

import pytest

from roost.engines.base import State
from roost.engines.http_server import Pace
from roost.engines.llama_slots import Motion, Progress, Slot
from roost.engines.llamacpp import LlamaServer
from roost.gateway.app import client_session
from tests.support.fakes import fake_engine
from tests.support.net import eventually, free_port
from tests.unit.engines.test_llamacpp import client_of, probe


def at_work(decoded: int = 0, *, slot: int = 0, task: int = 7, prompt: int = 0) -> dict[str, object]:
    """Return one entry of `/slots` as build 11669 writes it."""
    return {
        "id": slot,
        "is_processing": True,
        "id_task": task,
        "n_prompt_tokens": 400,
        "n_prompt_tokens_processed": prompt,
        "next_token": [{"n_decoded": decoded, "n_remain": 10}],
    }


def resting(tokens: int | None, slot: int = 0) -> dict[str, object]:
    """Return an entry of a slot that holds `tokens`; None for one that was never used."""
    entry: dict[str, object] = {"id": slot, "is_processing": False}
    return entry if tokens is None else {**entry, "id_task": 1, "n_prompt_tokens": tokens}


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([[at_work(1)], [at_work(2)], [at_work(2)], [at_work(2)]], ["MOVED", "MOVED", "STILL", "STALLED"]),
        ([[at_work(2)], [at_work(2)], [at_work(2, prompt=1)]], ["MOVED", "STILL", "MOVED"]),  # a part of the prompt
        ([[at_work(2)], [at_work(2)], [at_work(2, task=8)]], ["MOVED", "STILL", "MOVED"]),  # the next request
        ([[at_work(2)], [resting(9)], [at_work(2)]], ["MOVED", "UNKNOWN", "MOVED"]),
        (
            [[at_work(2), at_work(5, slot=1)], [at_work(2), at_work(6, slot=1)], [at_work(2), at_work(7, slot=1)]],
            ["MOVED", "MOVED", "MOVED"],  # one waits for the other
        ),
        ([[{"is_processing": True}], [{"is_processing": True}]], ["UNKNOWN", "UNKNOWN"]),  # it does not tell
    ],
)
def test_progress(looks: list[list[dict[str, object]]], expected: list[str]) -> None:
    progress = Progress(15.0)
    seen = [
        progress.look([Slot.model_validate(slot) for slot in look], 10.0 * number) for number, look in enumerate(looks)
    ]
    assert seen == [Motion[name] for name in expected]


async def test_slots_that_move_are_proof_enough_and_slots_that_stand_still_are_stuck() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=0, stall_s=0.0) as client:
        for decoded in range(3):
            engine.slots = [at_work(decoded), resting(None, 1)]
            assert (await probe(client)).state is State.READY
        assert engine.canaries == 0
        report = await probe(client)
        assert (report.state, report.stuck) == (State.DOWN, True)
        assert "made no progress" in report.reason


async def test_slots_that_stand_still_for_a_moment_are_no_fault() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=0, stall_s=60) as client:
        engine.slots = [at_work(1)]
        for _ in range(3):
            assert (await probe(client)).state is State.READY


async def test_a_canary_without_a_token_is_stuck_unless_the_server_is_at_work() -> None:
    async with (
        fake_engine(mode="hang") as engine,
        client_of(engine.url, canary_every_s=0, canary_timeout_s=1, stall_s=60) as client,
    ):
        engine.slots = [resting(None)]
        probing = asyncio.create_task(probe(client))
        await eventually(lambda: engine.canaries == 1, 5, "the canary")
        engine.slots = [at_work(1)]  # it waits behind somebody's request
        assert (await probing).state is State.READY
        engine.slots = [resting(None)]
        assert (await probe(client)).stuck


async def test_a_silent_server_is_stuck_and_a_gone_one_is_not() -> None:
    async with fake_engine() as engine, client_of(engine.url, health_timeout_s=1) as client:
        assert (await probe(client)).state is State.READY
        engine.mode = "silent"
        assert (await probe(client)).state is State.READY  # once may be chance
        report = await probe(client)
        assert (report.state, report.stuck) == (State.DOWN, True)
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        for _ in range(3):
            report = await probe(client)
            assert (report.state, report.stuck) == (State.DOWN, False)


async def test_what_is_worth_it_is_saved_and_comes_back_into_empty_slots() -> None:
    async with fake_engine(slot_files={}) as engine, client_of(engine.url, canary_every_s=60) as client:
        await probe(client)
        engine.slots = [resting(700), at_work(3, slot=1), resting(9, 2), resting(None, 3), resting(300, 4)]
        assert await client.save_slots() == 1000
        assert engine.slot_actions == ["save 0", "save 4"]
        engine.slot_actions.clear()
        engine.slots = [resting(30), resting(None, 1), at_work(1, slot=2), resting(900, 4)]
        assert await client.restore_slots() == 700
        assert engine.slot_actions == ["restore 0", "restore 1"]


async def test_another_model_never_reads_the_files() -> None:
    files: dict[str, int] = {}
    for model in ("one", "two"):
        async with fake_engine(slot_files=files, model=model) as engine, client_of(engine.url) as client:
            await probe(client)
            engine.slots = [resting(700)]
            assert await client.save_slots() == 700
    assert len(files) == 2


async def test_servers_without_a_folder_or_with_adapters_save_nothing() -> None:
    async with fake_engine() as engine, client_of(engine.url) as client:
        await probe(client)
        engine.slots = [resting(700)]
        assert await client.save_slots() == 0
    async with fake_engine(slot_files={}, adapters=("wild", "tame")) as engine, client_of(engine.url) as client:
        assert (await probe(client)).adapters == ("wild", "tame")
        engine.slots = [resting(700)]
        assert await client.save_slots() == 0


async def test_the_only_slot_keeps_its_conversation_from_the_canary() -> None:
    async with fake_engine(slot_files={}) as engine, client_session() as session:
        client = LlamaServer(engine.url, session, lambda: "engine-key", Pace(0, 10), keeps_slots=True)
        engine.slots = [resting(None)]
        await probe(client)
        assert engine.canaries == 1  # an empty one has nothing to lose
        engine.slots = [resting(700)]
        assert (await probe(client)).state is State.READY
        assert engine.canaries == 1
