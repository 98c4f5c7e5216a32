"""What a search is answered with: no search in this fleet is another thing than one that does not answer now."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from roost.agent.tools.errors import ToolError
from roost.agent.tools.web_search import FLEET_PATH, FleetSearch, SearchServices, search_web
from roost.cli.serve_search import searching
from roost.fleet.jobs import SEARCH_JOB
from roost.gateway.settings import Settings
from tests.support.agent_hub import Served, client_of, served
from tests.support.fakes import FakeJob, FakeNomad
from tests.support.net import free_port
from tests.support.web_server import serving


@pytest.fixture
async def nomad(tmp_path: Path) -> AsyncIterator[FakeNomad]:
    fake = FakeNomad(tmp_path / "api.sock")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def hub(tmp_path: Path, nomad: FakeNomad) -> AsyncIterator[Served]:
    settings = Settings(nomad_socket=nomad.socket, nomad_token=SecretStr(nomad.token))
    async with served(tmp_path / "hub", search=searching(settings)) as running:
        yield running


async def refused(hub: Served) -> tuple[int, str, str]:
    """Search; return the status, the code and the message."""
    async with client_of("anna") as client, client.post(f"{hub.url}{FLEET_PATH}", json={"query": "owls"}) as answer:
        error = json.loads(await answer.read())["error"]
        return answer.status, error["code"], error["message"]


async def told(hub: Served) -> str:
    """Return what the agent's tool says."""
    with pytest.raises(ToolError) as said:
        await search_web(SearchServices(fleet=FleetSearch(hub.url, "anna")), "owls")
    return str(said.value)


async def test_a_fleet_without_search_says_how_to_enable_it(hub: Served, nomad: FakeNomad) -> None:
    for job in (None, FakeJob(0, ("127.0.0.1", 1), [], stop=True)):  # never enabled; disabled, and kept by Nomad
        if job:
            nomad.jobs[SEARCH_JOB] = job
        assert (await refused(hub))[:2] == (404, "search_not_enabled")
        assert "roost search enable" in await told(hub)


async def test_a_job_of_another_name_is_no_search(hub: Served, nomad: FakeNomad) -> None:
    nomad.jobs[f"{SEARCH_JOB}-old"] = FakeJob(1, ("127.0.0.1", 1), [])
    assert (await refused(hub))[:2] == (404, "search_not_enabled")


async def test_search_that_is_enabled_and_not_there_is_unavailable(hub: Served, nomad: FakeNomad) -> None:
    nomad.jobs[SEARCH_JOB] = FakeJob(1, ("127.0.0.1", 1), [])  # wanted, registered nowhere
    status, code, message = await refused(hub)
    assert (status, code) == (503, "search_unavailable")
    assert "roost search status" in message
    nomad.set(SEARCH_JOB, ("127.0.0.1", free_port()))  # registered, and nothing answers there
    assert (await refused(hub))[:2] == (503, "search_unavailable")
    assert "does not answer" in await told(hub)


async def test_while_nomad_does_not_answer_it_is_unavailable(hub: Served, nomad: FakeNomad) -> None:
    await nomad.stop()
    status, code, message = await refused(hub)
    assert (status, code) == (503, "search_unavailable")
    assert "Nomad" in message
    assert "roost search enable" not in await told(hub)


@pytest.mark.parametrize(("status", "body", "came"), [(500, "down", 503), (200, "<html>", 502)])
async def test_what_answers_and_is_no_searxng_is_a_failure_of_its_own(
    hub: Served, nomad: FakeNomad, status: int, body: str, came: int
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    app = web.Application()
    app.router.add_get("/search", answer)
    async with serving(app) as url:
        nomad.set(SEARCH_JOB, ("127.0.0.1", int(url.rpartition(":")[2])))
        code = "search_unavailable" if came == 503 else "search_failed"
        assert (await refused(hub))[:2] == (came, code)
