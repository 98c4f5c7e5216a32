"""`web_search`: SearXNG where an address is set, Brave where a key is, else how to get one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, spec_of
from roost.agent.tools.errors import ToolError
from roost.agent.tools.undo_store import Place

RESULTS = 8
TIMEOUT_S = 20.0
BRAVE_URL = "https://api.search.brave.com/res/v1/web/search"
NO_SEARCH = (
    "No search service is set. The user starts SearXNG (its settings need `formats: [html, json]`) and sets "
    "ROOST_SEARXNG_URL for `roost worker`, or sets ROOST_BRAVE_KEY."
)


class SearchWebArguments(Arguments):
    """What to search for."""

    query: str = Field(min_length=1, max_length=400)


@dataclass(frozen=True)
class SearchServices:
    """Where is searched; both may be empty. SearXNG is asked first, Brave if it fails."""

    searxng_url: str = ""
    brave_key: str = ""


async def _searxng(http: aiohttp.ClientSession, url: str, query: str) -> list[tuple[str, str, str]]:
    async with http.get(f"{url.rstrip('/')}/search", params={"q": query, "format": "json"}) as answer:
        if answer.status == 403:
            raise ToolError("SearXNG gives no JSON: add `json` to search.formats in its settings.yml.")
        answer.raise_for_status()
        found: dict[str, Any] = await answer.json(content_type=None)
    return [(str(r.get("title", "")), str(r.get("url", "")), str(r.get("content", ""))) for r in found["results"]]


async def _brave(http: aiohttp.ClientSession, key: str, query: str) -> list[tuple[str, str, str]]:
    headers = {"X-Subscription-Token": key, "Accept": "application/json"}
    async with http.get(BRAVE_URL, params={"q": query, "count": str(RESULTS)}, headers=headers) as answer:
        answer.raise_for_status()
        found: dict[str, Any] = await answer.json()
    results = found.get("web", {}).get("results", [])
    return [(str(r.get("title", "")), str(r.get("url", "")), str(r.get("description", ""))) for r in results]


async def search_web(services: SearchServices, query: str) -> str:
    """Return what was found: title, address and an excerpt each.

    Raises:
        ToolError: no service is set, or none answered.
    """
    problems: list[str] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S / 2)) as http:
        for name, given, ask in (
            ("SearXNG", services.searxng_url, _searxng),
            ("Brave", services.brave_key, _brave),
        ):
            if not given:
                continue
            try:
                found = await ask(http, given, query)
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, ToolError) as error:
                problems.append(f"{name}: {str(error) or type(error).__name__}")
                continue
            lines = [f"{title}\n{url}\n{' '.join(text.split())[:300]}" for title, url, text in found[:RESULTS]]
            return "\n\n".join(lines) or "Nothing found."
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
