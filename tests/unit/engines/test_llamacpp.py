"""The probe, against a scripted model server (tests/support/fakes.py); the real one is in tests/contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from roost.engines import clients, http_server
from roost.engines.base import Load, Report, Skill, State
from roost.engines.http_server import Pace
from roost.engines.llamacpp import LlamaCppPythonServer, LlamaServer
from roost.gateway.app import client_session
from tests.support.fakes import fake_engine
from tests.support.net import free_port
from tests.support.web_server import serving

TEXT_ONLY = frozenset({Skill.EMBED, Skill.RERANK})  # what a server lacks that generates text and nothing else


@asynccontextmanager
async def client_of(url: str, key: str = "engine-key", **pace: float) -> AsyncIterator[LlamaServer]:
    async with client_session() as session:
        yield LlamaServer(url, session, lambda: key, Pace(**{"canary_timeout_s": 10, **pace}))


async def probe(client: LlamaServer, *, busy: bool = False) -> Report:
    return await client.probe(busy=busy)


async def test_a_ready_server_tells_what_it_is() -> None:
    async with fake_engine() as engine, client_of(engine.url) as client:
        report = await probe(client)
        load = Load(running=0)
        assert report == Report(State.READY, models=("tiny",), context=2048, slots=2, lacks=TEXT_ONLY, load=load)
        assert client.headers() == {"Authorization": "Bearer engine-key"}


async def test_a_real_token_is_asked_for_first_and_then_seldom() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=60) as client:
        for _ in range(5):
            assert (await probe(client)).state is State.READY
        assert engine.canaries == 1


async def test_a_server_that_has_just_answered_a_client_needs_no_canary() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=60) as client:
        client.proved()
        assert (await probe(client)).state is State.READY
        assert engine.canaries == 0


async def test_after_a_restart_a_token_is_asked_for_again() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=60) as client:
        await probe(client)
        engine.mode = "loading"
        assert (await probe(client)).state is State.LOADING
        engine.mode = "ready"
        assert (await probe(client)).state is State.READY
        assert engine.canaries == 2


async def test_a_healthy_page_over_a_stuck_server_is_not_believed() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=0, canary_timeout_s=1) as client:
        assert (await probe(client)).state is State.READY
        engine.mode = "stuck"
        report = await probe(client)
        assert (report.state, report.stuck) == (State.DOWN, True)
        assert "did not produce a token" in report.reason


async def test_nothing_there_is_down_at_once() -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        report = await probe(client)
        assert report.state is State.DOWN
        assert "nothing answers" in report.reason


async def test_a_wrong_key_is_said_as_such() -> None:
    async with fake_engine() as engine, client_of(engine.url, key="wrong") as client:
        assert (await probe(client)).reason == "it refuses the engine key"


async def test_one_bad_answer_of_a_known_server_is_forgiven_the_second_is_not() -> None:
    async with fake_engine() as engine, client_of(engine.url, canary_every_s=0) as client:
        assert (await probe(client)).state is State.READY
        engine.key = "changed"
        assert (await probe(client)).state is State.READY
        assert (await probe(client)).state is State.DOWN


async def test_with_all_slots_at_work_the_list_of_slots_is_proof_enough() -> None:
    async with fake_engine(all_slots_busy=True) as engine, client_of(engine.url, canary_every_s=0) as client:
        assert (await probe(client, busy=True)).state is State.READY
        assert engine.canaries == 0


async def _answer(_request: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "other", "meta": None}], "choices": []})


async def test_a_server_without_llama_cpps_pages_is_understood() -> None:
    app = web.Application()
    app.router.add_get("/v1/models", _answer)
    app.router.add_post("/v1/chat/completions", _answer)
    async with serving(app) as url, client_of(url) as client:
        assert await probe(client) == Report(State.READY, models=("other",), lacks=TEXT_ONLY)


async def test_the_other_engine_is_never_asked_for_its_slots() -> None:
    async with fake_engine() as engine, client_session() as session:
        client = LlamaCppPythonServer(engine.url, session, lambda: "engine-key", Pace(canary_every_s=0))
        assert (await client.probe(busy=True)).state is State.READY
        assert engine.canaries == 0
        assert (await client.probe(busy=False)).state is State.READY
        assert engine.canaries == 1


def test_the_service_tag_chooses_the_client() -> None:
    assert clients.client_of("llama-cpp-python") is LlamaCppPythonServer
    assert clients.client_of("llama.cpp") is LlamaServer
    assert clients.client_of("") is LlamaServer


async def test_an_answer_to_our_own_question_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MOST_PAGE_BYTES", 1000)
    async with fake_engine(metrics="x 1\n" * 1000) as engine, aiohttp.ClientSession() as session:
        client = LlamaServer(engine.url, session, lambda: "engine-key")
        with pytest.raises(aiohttp.ClientPayloadError, match="longer than 1000 bytes"):
            await client.get("/metrics")
