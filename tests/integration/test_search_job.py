"""SearXNG as the job that the playbook runs, in a real Nomad: found by a hub through Nomad, asked by the agent's tool.

It is SearXNG itself, with one engine that asks a web server of the test; its image is not at hand here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from roost.agent.tools.errors import ToolError
from roost.agent.tools.web_search import FleetSearch, SearchServices, search_web
from roost.cli import search as verbs
from roost.cli.serve_search import searching
from roost.fleet.job_text import render_job
from roost.fleet.jobs import SEARCH_JOB, Identity
from roost.fleet.search.job import SearchPrograms, SearchWish, ensure_search_variable, search_job
from roost.gateway.settings import Settings
from tests.integration.test_monitoring_job import Client
from tests.support.agent_hub import served
from tests.support.engine import REPOSITORY
from tests.support.net import eventually, free_port
from tests.support.nomad import DevNomad, dev_nomad
from tests.support.searxng import engine_of_pages, searxng_command
from tests.support.web_server import serving

ROOT = Identity("root", "root", 0, 0)  # the tests' folders are open to nobody else


@pytest.fixture
def nomad(tmp_path: Path) -> Iterator[DevNomad]:
    """A real Nomad."""
    with dev_nomad(tmp_path) as running:
        yield running


@asynccontextmanager
async def pages() -> AsyncIterator[str]:
    """The web of this test: a search engine of one page."""

    async def found(request: web.Request) -> web.Response:
        about = request.query["q"]
        return web.json_response({"items": [{"t": f"About {about}", "u": "https://example.org/a", "c": "All of it."}]})

    app = web.Application()
    app.router.add_get("/", found)
    async with serving(app) as url:
        yield url


async def test_the_agents_tool_finds_the_fleets_searxng(tmp_path: Path, nomad: DevNomad) -> None:
    command = await asyncio.to_thread(searxng_command, tmp_path)
    client: Any = Client(nomad)
    port = free_port()
    async with pages() as address, nomad.socket(tmp_path / "nomad.sock") as socket:
        wish = SearchWish(
            port=port, memory_mib=512, engines=(engine_of_pages(address),), command=tuple(command), identity=ROOT
        )
        job = search_job(wish, SearchPrograms(), "raw_exec", datacenter="dc1", bind="127.0.0.1")
        settings = Settings(nomad_socket=socket, nomad_token=SecretStr(nomad.agent_token()))
        async with served(tmp_path / "hub", search=searching(settings)) as hub:
            fleet = SearchServices(fleet=FleetSearch(hub.url, "anna"))
            with pytest.raises(ToolError, match="roost search enable"):
                await search_web(fleet, "owls")

            assert ensure_search_variable(client, wish, bind="127.0.0.1")
            text = render_job(REPOSITORY / "nomad", job).replace('host_network = "loopback"', "")  # this Nomad has none
            await asyncio.to_thread(nomad.run, text)
            url = f"http://127.0.0.1:{port}"
            told = await asyncio.to_thread(verbs.first_answer, url)
            if told.problem:
                states = (await asyncio.to_thread(nomad.allocations, SEARCH_JOB))[-1:]
                pytest.fail(f"{told} {str(states)[:3000]}")
            assert (told.results, told.unanswered) == (1, ())
            assert await verbs.alive(url) == ""

            text = await search_web(fleet, "barn owls")
            assert text == "About barn owls\nhttps://example.org/a\nAll of it."

            await asyncio.to_thread(nomad.ask, "DELETE", f"job/{SEARCH_JOB}")

            async def gone() -> bool:
                try:
                    await search_web(fleet, "owls")
                except ToolError as said:
                    return "roost search enable" in str(said)
                return False

            await eventually(gone, 60, "the search to be gone")
