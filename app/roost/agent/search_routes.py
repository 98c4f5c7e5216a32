"""Searching the web over the hub: workers need no address, for the hub knows where the fleet's SearXNG is.

SearXNG asks for no key and speaks no TLS, so it answers on loopback only, and whoever has a key of the API asks here.
"""

from __future__ import annotations

from dataclasses import asdict

import aiohttp
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from roost.agent.tools.errors import ToolError, UnavailableError
from roost.agent.tools.searxng import Where, ask_searxng
from roost.agent.tools.web_search import FLEET_PATH
from roost.gateway.errors import SERVER_ERROR, ApiError

MOST_HITS = 20
TIMEOUT_S = 9.0


class Asked(BaseModel):
    """What to search for."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=400)


def search_routes(where: Where) -> APIRouter:
    """Return the route at `FLEET_PATH`; `where` gives the address of SearXNG."""
    router = APIRouter()

    @router.post(FLEET_PATH, summary="Search the web")
    async def search(body: Asked) -> JSONResponse:
        try:
            url = await where()
            if not url:
                text = "This fleet has no web search: `sudo roost search enable` starts it."
                raise ApiError(404, text, code="search_not_enabled")
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
                found = await ask_searxng(http, url, body.query)
        except UnavailableError as error:
            text = f"{error}. `roost search status` on the fleet's first machine says why."
            raise ApiError(503, text, kind=SERVER_ERROR, code="search_unavailable") from None
        except ToolError as error:
            raise ApiError(502, str(error), kind=SERVER_ERROR, code="search_failed") from None
        hits = [asdict(hit) for hit in found.hits[:MOST_HITS]]
        return JSONResponse({"object": "search", "results": hits, "unanswered": list(found.unanswered)})

    return router
