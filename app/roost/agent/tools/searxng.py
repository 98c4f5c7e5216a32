"""Asking a SearXNG: its search API with JSON (https://docs.searxng.org/dev/search_api.html)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.agent.tools.errors import ToolError, UnavailableError

MOST_BYTES = 4 << 20
MOST_TEXT = 600
Where = Callable[[], Awaitable[str]]
"""Gives SearXNG's base address, '' where there is none; raises UnavailableError where that cannot be said now."""


@dataclass(frozen=True)
class Hit:
    """One page that was found."""

    title: str
    url: str
    text: str = ""


@dataclass(frozen=True)
class Found:
    """What was found, best first, and which search engines gave no answer, each with the reason."""

    hits: tuple[Hit, ...] = ()
    unanswered: tuple[str, ...] = ()


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore")

    title: str | None = ""
    url: str | None = ""
    content: str | None = ""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    results: list[_Result]
    unresponsive_engines: list[list[str]] = Field(default_factory=list)


def given(url: str) -> Where:
    """Return what says this address."""

    async def where() -> str:
        return url

    return where


NOWHERE = given("")
"""Stands for a fleet without a search service."""


async def ask_searxng(http: aiohttp.ClientSession, url: str, query: str) -> Found:
    """Search; `url` is the base address.

    Raises:
        UnavailableError: it does not answer.
        ToolError: it does not answer with JSON.
    """
    try:
        async with http.get(f"{url.rstrip('/')}/search", params={"q": query, "format": "json"}) as answer:
            if answer.status == 403:
                raise ToolError("SearXNG gives no JSON: add `json` to search.formats in its settings.yml.")
            answer.raise_for_status()
            said = await answer.content.read(MOST_BYTES)
            while not answer.content.at_eof() and len(said) < MOST_BYTES:
                said += await answer.content.read(MOST_BYTES - len(said))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UnavailableError(f"SearXNG does not answer: {str(error) or type(error).__name__}") from None
    try:
        found = _Answer.model_validate(json.loads(said))
    except (ValueError, ValidationError):
        raise ToolError("What answers is no SearXNG.") from None
    hits = (Hit(r.title or "", r.url or "", " ".join((r.content or "").split())[:MOST_TEXT]) for r in found.results)
    return Found(tuple(hits), tuple(": ".join(engine) for engine in found.unresponsive_engines))


def shown(found: Found, most: int) -> str:
    """Return what was found as text for a model: title, address and an excerpt each."""
    lines = [f"{hit.title}\n{hit.url}\n{hit.text[:300]}" for hit in found.hits[:most]]
    silent: Sequence[str] = () if lines else found.unanswered
    nothing = "Nothing found." + (f" Without an answer: {'; '.join(silent)}." if silent else "")
    return "\n\n".join(lines) or nothing
