"""`web_search`: SearXNG where an address is set, else that of the fleet, Brave where a key is, else how to get one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, spec_of
from roost.agent.tools.errors import ToolError
from roost.agent.tools.searxng import Found, Hit, ask_searxng, shown
from roost.agent.tools.undo_store import Place

RESULTS = 8
TIMEOUT_S = 20.0
BRAVE_URL = "https://api.search.brave.com/res/v1/web/search"
FLEET_PATH = "/roost/v1/search"
NO_SEARCH = (
    "No search service is set. `sudo roost search enable` on the fleet's first machine starts SearXNG, and it is found "
    "from then on; or set ROOST_SEARXNG_URL (a SearXNG of your own, with `formats: [html, json]`) or ROOST_BRAVE_KEY "
    "for `roost worker`."
)
Ask = Callable[[aiohttp.ClientSession, str], Awaitable[Found]]


class SearchWebArguments(Arguments):
    """What to search for."""

    query: str = Field(min_length=1, max_length=400)


class NoServiceError(Exception):
    """The fleet has no search service."""


@dataclass(frozen=True)
class FleetSearch:
    """The fleet's search, asked over its API, which knows where it is. `ssl` says how its certificate is checked."""

    base_url: str
    key: str
    ssl: Any = True
    proxied: bool = False

    async def ask(self, _http: aiohttp.ClientSession, query: str) -> Found:
        """Search.

        Raises:
            NoServiceError: there is none.
            ToolError: the API does not answer, or the search failed.
        """
        headers = {"Authorization": f"Bearer {self.key}"}
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S / 2)
        connector = aiohttp.TCPConnector(ssl=self.ssl)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit, trust_env=self.proxied) as http,
            http.post(f"{self.base_url}{FLEET_PATH}", json={"query": query}, headers=headers) as answer,
        ):
            said: dict[str, Any] = json.loads(await answer.read())
            if answer.status >= 400:
                error = said["error"]
                if answer.status == 404:
                    raise NoServiceError
                raise ToolError(str(error["message"]))
        return Found(tuple(Hit(**hit) for hit in said["results"]), tuple(said["unanswered"]))


@dataclass(frozen=True)
class SearchServices:
    """Where is searched; all may be empty. A SearXNG of one's own is asked first, then the fleet's, then Brave."""

    searxng_url: str = ""
    brave_key: str = ""
    fleet: FleetSearch | None = None

    def ways(self) -> list[tuple[str, Ask]]:
        """Return what to ask, in order."""

        async def own(http: aiohttp.ClientSession, query: str) -> Found:
            return await ask_searxng(http, self.searxng_url, query)

        async def brave(http: aiohttp.ClientSession, query: str) -> Found:
            return await _brave(http, self.brave_key, query)

        ways: list[tuple[str, Ask]] = [("SearXNG", own)] if self.searxng_url else []
        ways += [("The fleet's search", self.fleet.ask)] if self.fleet and not self.searxng_url else []
        return [*ways, *([("Brave", brave)] if self.brave_key else [])]


async def _brave(http: aiohttp.ClientSession, key: str, query: str) -> Found:
    headers = {"X-Subscription-Token": key, "Accept": "application/json"}
    async with http.get(BRAVE_URL, params={"q": query, "count": str(RESULTS)}, headers=headers) as answer:
        answer.raise_for_status()
        found: dict[str, Any] = await answer.json()
    results = found.get("web", {}).get("results", [])
    return Found(
        tuple(Hit(str(r.get("title", "")), str(r.get("url", "")), str(r.get("description", ""))) for r in results)
    )


async def search_web(services: SearchServices, query: str) -> str:
    """Return what was found: title, address and an excerpt each.

    Raises:
        ToolError: no service is set, or none answered.
    """
    problems: list[str] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S / 2)) as http:
        for name, ask in services.ways():
            try:
                found = await ask(http, query)
            except NoServiceError:
                continue
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, ToolError) as error:
                problems.append(f"{name}: {str(error) or type(error).__name__}")
                continue
            return shown(found, RESULTS)
    raise ToolError("; ".join(problems) if problems else NO_SEARCH)


def search_web_tool(services: SearchServices) -> Tool[SearchWebArguments]:
    """Return the tool."""

    async def run(given: SearchWebArguments, _place: Place | None) -> Done:
        return Done(await search_web(services, given.query))

    spec = spec_of(
        "web_search", "Search the web.", SearchWebArguments, Permission.NETWORK, timeout_s=TIMEOUT_S,
        safe_to_repeat=True,
    )  # fmt: skip
    return Tool(spec, SearchWebArguments, run, needs_place=False)
