"""Following Nomad's services. Nomad is a scripted fake on a Unix socket (tests/support/fakes.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from roost.gateway.discovery import NomadWatcher, given_members
from roost.gateway.endpoints.endpoint import SETTINGS, Member
from roost.gateway.settings import Settings
from roost.gateway.task_api import TaskApi
from tests.support.fakes import FakeNomad, fake_engine
from tests.support.gateway import quick_settings, served
from tests.support.net import eventually

MAIN = "roost-model-main"


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", []),
        ("http://127.0.0.1:1/", [Member("main", "http://127.0.0.1:1", source=SETTINGS)]),
        (
            "http://a:1, coder=http://b:2/",
            [Member("main", "http://a:1", source=SETTINGS), Member("coder", "http://b:2", source=SETTINGS)],
        ),
    ],
)
def test_static_endpoints_are_read(text: str, members: list[Member]) -> None:
    assert list(given_members(text)) == members


class Seen:
    """Keeps the lists that discovery reports."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []

    def __call__(self, members: Collection[Member]) -> None:
        self.lists.append(sorted(member.id for member in members))


@asynccontextmanager
async def watching(nomad: FakeNomad, seen: Seen) -> AsyncIterator[None]:
    watcher = NomadWatcher(TaskApi(nomad.socket, nomad.token), "roost-model-", seen)
    task = asyncio.create_task(watcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def is_last(seen: Seen, *members: str) -> None:
    await eventually(lambda: seen.lists[-1:] == [sorted(members)], 10, f"{members}, not {seen.lists[-1:]}")


async def test_services_are_followed_by_blocking_queries(tmp_path: Path) -> None:
    nomad, seen = FakeNomad(tmp_path / "api.sock"), Seen()
    nomad.set("somebody-else", ("127.0.0.1", 1))
    await nomad.start()
    async with watching(nomad, seen):
        await is_last(seen)
        nomad.set(MAIN, ("127.0.0.1", 20001))
        await is_last(seen, "main@127.0.0.1:20001")
        nomad.set("roost-model-coder", ("127.0.0.1", 20002), ("::1", 20003))
        await is_last(seen, "main@127.0.0.1:20001", "coder@127.0.0.1:20002", "coder@[::1]:20003")
        await eventually(lambda: nomad.blocked == 3, 5, "all three queries to wait")
        nomad.set(MAIN, ("127.0.0.1", 20009))
        await is_last(seen, "main@127.0.0.1:20009", "coder@127.0.0.1:20002", "coder@[::1]:20003")
        nomad.set("roost-model-coder")
        await is_last(seen, "main@127.0.0.1:20009")
    await nomad.stop()


async def test_while_nomad_is_away_what_was_known_stays(tmp_path: Path) -> None:
    nomad, seen = FakeNomad(tmp_path / "api.sock"), Seen()
    nomad.set(MAIN, ("127.0.0.1", 20001))
    await nomad.start()
    async with watching(nomad, seen):
        await is_last(seen, "main@127.0.0.1:20001")
        await nomad.stop()
        count = len(seen.lists)
        nomad.set(MAIN, ("127.0.0.1", 20002), index=3)  # it comes back with another history
        nomad.failing = True
        await nomad.start()
        assert len(seen.lists) == count
        nomad.failing = False
        await is_last(seen, "main@127.0.0.1:20002")
        assert [] not in seen.lists
    await nomad.stop()


async def test_an_index_that_goes_back_is_asked_for_anew(tmp_path: Path) -> None:
    nomad, seen = FakeNomad(tmp_path / "api.sock"), Seen()
    nomad.set(MAIN, ("127.0.0.1", 20001))
    await nomad.start()
    async with watching(nomad, seen):
        await is_last(seen, "main@127.0.0.1:20001")
        await eventually(lambda: nomad.blocked == 2, 5, "both queries to wait")
        nomad.set(MAIN, ("127.0.0.1", 20002), index=5)
        nomad.end_waiting()
        await is_last(seen, "main@127.0.0.1:20002")
        await eventually(lambda: nomad.blocked == 2, 5, "both queries to wait again")
        nomad.set(MAIN, ("127.0.0.1", 20003))
        await is_last(seen, "main@127.0.0.1:20003")
    await nomad.stop()


async def test_it_waits_for_a_socket_that_is_not_there_yet(tmp_path: Path) -> None:
    nomad, seen = FakeNomad(tmp_path / "api.sock"), Seen()
    nomad.set(MAIN, ("127.0.0.1", 20001))
    async with watching(nomad, seen):
        await nomad.start()
        await is_last(seen, "main@127.0.0.1:20001")
    await nomad.stop()


async def test_a_moved_model_server_gets_the_next_request_before_the_next_probe(tmp_path: Path) -> None:
    nomad = FakeNomad(tmp_path / "api.sock", tags=["model=tiny"])
    await nomad.start()
    settings = quick_settings(
        tmp_path, nomad_socket=nomad.socket, NOMAD_TOKEN=SecretStr(nomad.token), probe_every_s=60.0, wait_s=30.0
    )
    async with served(settings) as gateway, fake_engine() as old:
        nomad.set(MAIN, ("127.0.0.1", old.port))
        await gateway.ready()
        await old.stop()
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
        url = gateway.url + "/v1/chat/completions"
        async with asyncio.timeout(90), fake_engine() as new:
            asking = asyncio.create_task(gateway.client.post(url, json=chat).__aenter__())
            await eventually(lambda: gateway.states() == ["down"], 5, "the old one to be found gone")
            loop = asyncio.get_running_loop()
            moved_at = loop.time()
            nomad.set(MAIN, ("127.0.0.1", new.port))
            answer = await asking
            assert loop.time() - moved_at < 25  # not with the next probe
            assert answer.status == 200
            assert answer.headers["x-roost-endpoint"] == f"main@127.0.0.1:{new.port}"
            await answer.read()
    await nomad.stop()


async def test_a_tag_names_the_model_before_the_server_does(tmp_path: Path) -> None:
    nomad = FakeNomad(tmp_path / "api.sock", tags=["slot=main", "model=tiny"])
    await nomad.start()
    settings = quick_settings(tmp_path, nomad_socket=nomad.socket, NOMAD_TOKEN=SecretStr(nomad.token))
    async with served(settings) as gateway, fake_engine(mode="loading") as engine:
        nomad.set(MAIN, ("127.0.0.1", engine.port))
        await eventually(lambda: gateway.states() == ["loading"], 5, "the endpoint")
        async with gateway.client.get(gateway.url + "/v1/models") as answer:
            (entry,) = (await answer.json())["data"]
        assert entry["id"] == "tiny"
        assert entry["roost"]["state"] == "loading"
        async with gateway.client.get(gateway.url + "/readyz") as answer:
            assert answer.status == 503
            assert "main: " in (await answer.json())["reasons"][0]
    await nomad.stop()


@pytest.mark.parametrize(
    "text", ["main=127.0.0.1:1", "127.0.0.1:1", "http://", "main=http://", "http://a:1,b", "ftp://a"]
)
def test_what_is_no_address_is_refused_before_anything_starts(text: str) -> None:
    with pytest.raises(ValidationError, match="static_endpoints"):
        Settings(static_endpoints=text)
