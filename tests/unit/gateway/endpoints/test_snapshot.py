"""A gateway that starts again knows what it knew, if that is not long ago."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from roost.engines.base import Load, Report, State
from roost.fleet.endpoint_list import EndpointDocument, HandEndpoint
from roost.gateway.endpoints.beliefs import Belief
from roost.gateway.endpoints.endpoint import Member
from roost.gateway.endpoints.outliers import Result
from roost.gateway.endpoints.snapshot import BELIEVED_S, NAME, SNAPSHOT, Snapshot, aged, read
from tests.support.fakes import FakeNomad, fake_engine
from tests.support.gateway import endpoint_at, quick_settings, served
from tests.support.net import eventually
from tests.support.services import KEY, LmStudio, running
from tests.unit.gateway.endpoints.test_routes import add, chat, listed, ready

MEMBER = Member("main", "http://127.0.0.1:1", allocation="a")
BELIEF = Belief("main@127.0.0.1:1", Report(State.READY, models=("tiny",), context=2048), "a", 20.0, 2, "why")


@dataclass
class Slow(LmStudio):
    """A server that answers chats, and questions of what it is only when it may."""

    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer, but first wait if it is a question."""
        if request.method == "GET":
            await self.may.wait()
        return await super().answer(request)


async def test_the_first_request_after_a_restart_waits_for_no_probe(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, state_dir=tmp_path, wait_s=0.3)
    async with running(slow := Slow(key=KEY)):
        slow.may.set()
        async with served(settings) as gateway:
            await add(gateway, "studio", slow.url, key=KEY)
            await ready(gateway, "studio")
        slow.may.clear()
        assert KEY not in (tmp_path / NAME).read_text()
        assert (tmp_path / NAME).stat().st_mode & 0o077 == 0
        async with served(settings) as gateway:
            assert (await chat(gateway, "qwen3"))[0] == 200
            assert (await listed(gateway))["studio"]["parallel"] == 4
        old = time.time() - BELIEVED_S - 10
        os.utime(tmp_path / NAME, (old, old))
        async with served(settings) as gateway:
            assert (await chat(gateway, "qwen3"))[0] == 503
            slow.may.set()
            await ready(gateway, "studio")


async def test_who_was_ejected_stays_so(tmp_path: Path) -> None:
    async with fake_engine() as one, fake_engine() as two:
        settings = quick_settings(tmp_path, state_dir=tmp_path, static_endpoints=f"{one.url},{two.url}")
        async with served(settings) as gateway:
            await gateway.ready(2)
            for _ in range(5):
                gateway.gateway.registry.record(
                    endpoint_at(gateway.gateway.registry, f"main@127.0.0.1:{one.port}"), Result.FAILED
                )
        async with served(settings) as gateway:
            ejected = {view.id for view in gateway.gateway.registry.views() if view.ejected}
            assert ejected == {f"main@127.0.0.1:{one.port}"}
            entry = (await listed(gateway))[f"main@127.0.0.1:{one.port}"]
            assert (entry["ejected"]["times"], entry["ejected"]["for_s"] > 20) == (1, True)


async def test_what_nomad_said_last_holds_until_it_says_more(tmp_path: Path) -> None:
    nomad = FakeNomad(tmp_path / "api.sock")
    await nomad.start()
    given = {"nomad_socket": nomad.socket, "NOMAD_TOKEN": nomad.token, "state_dir": tmp_path, "wait_s": 0.3}
    try:
        async with fake_engine() as engine:
            nomad.set("roost-model-main", ("127.0.0.1", engine.port))
            async with served(quick_settings(tmp_path, **given)) as gateway:
                await gateway.ready()
            nomad.failing = True
            async with served(quick_settings(tmp_path, **given)) as gateway:
                assert (await chat(gateway, "auto"))[0] == 200
                nomad.failing = False
                nomad.set("roost-model-main")
                await eventually(lambda: not gateway.states(), 10, "Nomad's own list")
    finally:
        await nomad.stop()


async def test_a_snapshot_that_cannot_be_read_or_written_keeps_nobody_from_starting(tmp_path: Path) -> None:
    async with fake_engine() as engine:
        settings = quick_settings(tmp_path, state_dir=tmp_path, static_endpoints=engine.url)
        (tmp_path / NAME).write_text('{"format": 1, "beliefs": [{}')
        async with served(settings) as gateway:
            await gateway.ready()
        (tmp_path / NAME).unlink()
        (tmp_path / NAME).mkdir()
        async with served(settings) as gateway:
            await gateway.ready()


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    kept = Snapshot(members=(MEMBER,), beliefs=(BELIEF,))
    (tmp_path / NAME).write_bytes(SNAPSHOT.dump_json(kept))
    assert read(tmp_path / NAME, time.time())[0] == kept
    assert read(tmp_path / "none", 0) == (Snapshot(), 0.0)


@given(st.floats(-1e6, 1e6))
def test_only_a_young_snapshot_is_believed(age_s: float) -> None:
    found = aged(Snapshot(members=(MEMBER,), beliefs=(BELIEF,)), age_s)
    (belief,) = found.beliefs
    young = 0 <= age_s <= BELIEVED_S
    assert (belief.report.state is State.READY) == young == bool(found.members)
    assert belief.report.models == ("tiny",)
    assert 0 <= belief.left_s <= BELIEF.left_s
    assert replace(belief.report, state=State.READY, reason="") == BELIEF.report
    assert belief.report.load == Load()


async def test_one_endpoint_written_wrongly_harms_no_other(tmp_path: Path) -> None:
    bad = "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"
    good = HandEndpoint(name="good", url="http://127.0.0.1:1", engine="ollama")
    wrong = HandEndpoint(name="wrong", url="https://127.0.0.1:2", engine="ollama", ca=bad)
    file = tmp_path / "endpoints.json"
    file.write_text(EndpointDocument(revision=1, endpoints=(wrong, good)).text())
    async with served(quick_settings(tmp_path, endpoints_file=file)) as gateway:
        await eventually(lambda: [view.id for view in gateway.gateway.registry.views()] == ["good"], 5, "the good one")
        assert not gateway.gateway.registry.fault
