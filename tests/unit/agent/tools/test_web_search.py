"""Searching the web: which service is asked, what a model reads of it, and what is said where there is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from roost.agent.tools.errors import ToolError
from roost.agent.tools.searxng import given
from roost.agent.tools.web_search import FLEET_PATH, FleetSearch, SearchServices, search_web
from tests.support.agent_hub import client_of, served
from tests.support.web_server import serving

RESULT = {"title": "Owls", "url": "https://example.org/owls", "content": "They  hunt\nat night.", "engine": "x"}
FOUND = {"query": "owls", "results": [RESULT] * 12, "unresponsive_engines": [["bing", "timeout"]]}


@asynccontextmanager
async def searxng(body: str, status: int = 200) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that speaks SearXNG's protocol as it is documented; yields its address and what it was asked."""
    asked: list[str] = []

    async def search(request: web.Request) -> web.Response:
        asked.append(f"{request.query['q']} as {request.query['format']}")
        return web.Response(text=body, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_get("/search", search)
    async with serving(app) as url:
        yield url, asked


async def test_without_a_service_the_user_is_told_how_to_get_one() -> None:
    with pytest.raises(ToolError) as told:
        await search_web(SearchServices(), "owls")
    for word in ("roost search enable", "ROOST_BRAVE_KEY", "ROOST_SEARXNG_URL"):
        assert word in str(told.value)


async def test_the_fleets_own_is_found_over_the_hub(tmp_path: Path) -> None:
    async with searxng(json.dumps(FOUND)) as (url, asked), served(tmp_path, search=given(url)) as hub:
        fleet = SearchServices(fleet=FleetSearch(hub.url, "anna"))
        text = await search_web(fleet, "owls & mice")
        assert asked == ["owls & mice as json"]
        assert text.count("https://example.org/owls") == 8
        assert text.startswith("Owls\nhttps://example.org/owls\nThey hunt at night.")
        for key, status in {"": 401, "rita": 403}.items():
            async with client_of(key) as client, client.post(f"{hub.url}{FLEET_PATH}", json={"query": "a"}) as answer:
                assert answer.status == status
        async with client_of("anna") as client, client.post(f"{hub.url}{FLEET_PATH}", json={"query": ""}) as answer:
            assert answer.status == 422
        assert len(asked) == 1


async def test_a_fleet_without_one_is_told_like_no_service_at_all(tmp_path: Path) -> None:
    async with served(tmp_path) as hub:
        with pytest.raises(ToolError, match="roost search enable"):
            await search_web(SearchServices(fleet=FleetSearch(hub.url, "anna")), "owls")


async def test_a_service_of_ones_own_comes_before_the_fleets() -> None:
    async with searxng(json.dumps(FOUND)) as (url, _asked):
        lost = FleetSearch("http://127.0.0.1:9", "anna")
        assert "Owls" in await search_web(SearchServices(url, fleet=lost), "owls")
        with pytest.raises(ToolError, match="fleet"):
            await search_web(SearchServices(fleet=lost), "owls")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("Forbidden", 403, "search.formats"),
        ("<html>", 200, "no SearXNG"),
        ("{}", 200, "no SearXNG"),
        ("down", 500, "does not answer"),
    ],
)
async def test_what_does_not_work_is_said_here_and_over_the_hub(
    tmp_path: Path, body: str, status: int, said: str
) -> None:
    async with searxng(body, status) as (url, _asked), served(tmp_path, search=given(url)) as hub:
        for services in (SearchServices(url), SearchServices(fleet=FleetSearch(hub.url, "anna"))):
            with pytest.raises(ToolError, match=said):
                await search_web(services, "owls")


async def test_nothing_found_says_which_engines_were_silent() -> None:
    empty = {"results": [], "unresponsive_engines": [["bing", "timeout"], ["qwant", "access denied"]]}
    async with searxng(json.dumps(empty)) as (url, _asked):
        text = await search_web(SearchServices(url), "owls")
    assert text == "Nothing found. Without an answer: bing: timeout; qwant: access denied."
