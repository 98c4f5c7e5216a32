"""Searching the web over the hub: workers need no address, for the hub knows where the fleet's SearXNG is.

SearXNG asks for no key and speaks no TLS, so it answers on loopback only, and whoever has a key of the API asks here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

import aiohttp
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from roost.agent.tools.errors import ToolError
from roost.agent.tools.searxng import ask_searxng
from roost.gateway.errors import ApiError

PATH = "/roost/v1/search"
MOST_HITS = 20
TIMEOUT_S = 9.0
NOT_ENABLED = "search_not_enabled"
Where = Callable[[], Awaitable[str]]


class Asked(BaseModel):
    """What to search for."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=400)


async def nowhere() -> str:
    """Stand for a fleet without a search service."""
    return ""


def search_routes(where: Where) -> APIRouter:
    """Return the route at `PATH`; `where` gives the address of SearXNG, empty where there is none."""
    router = APIRouter()

    @router.post(PATH, summary="Search the web")
    async def search(body: Asked) -> JSONResponse:
        url = await where()
        if not url:
            text = "This fleet has no web search: `sudo roost search enable` starts it."
            raise ApiError(404, text, code=NOT_ENABLED)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
                found = await ask_searxng(http, url, body.query)
        except ToolError as error:
            raise ApiError(502, str(error), kind="server_error", code="search_failed") from None
        hits = [asdict(hit) for hit in found.hits[:MOST_HITS]]
        return JSONResponse({"object": "search", "results": hits, "unanswered": list(found.unanswered)})

    return router
