"""What Roost's own MCP server gives beside files and programs: a model, the memory and the conversations of the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import AnyTool, Arguments, Done, Tool, spec_of
from roost.agent.tools.errors import ToolError
from roost.agent.tools.undo_store import Place

ASK_S = 600.0
SEARCH_S = 30.0
MOST_BYTES = 4 << 20
BLOCK_BYTES = 1 << 16
MOST_HITS = 20
Json = Any


class AskArguments(Arguments):
    """What to ask a model."""

    question: str = Field(min_length=1, max_length=200_000)
    model: str = Field(default="auto", max_length=200, description="Its name; auto is the fleet's choice.")
    max_tokens: int = Field(default=1024, ge=1, le=32_768)


class SearchArguments(Arguments):
    """What to search for."""

    query: str = Field(min_length=1, max_length=500)


@dataclass(frozen=True)
class Hub:
    """The API, with the key of whoever runs the server."""

    http: aiohttp.ClientSession
    base_url: str
    key: str

    async def ask(self, method: str, path: str, limit_s: float, **given: Json) -> Mapping[str, Json]:
        """Ask the API for an object.

        Raises:
            ToolError: it does not answer, or refuses.
        """
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            async with self.http.request(
                method, f"{self.base_url}{path}", headers=headers, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=limit_s), **given,
            ) as answer:  # fmt: skip
                document = json.loads(await _whole(answer))
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise ToolError(f"The API did not answer: {str(error) or type(error).__name__}.") from None
        if answer.status >= 300 or not isinstance(document, dict):
            reason = document.get("error", {}).get("message") if isinstance(document, dict) else None
            raise ToolError(f"The API refused: {reason or f'status {answer.status}'}")
        return document


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """Return all of an answer, however many pieces it comes in.

    Raises:
        ToolError: it is longer than any that is meant.
    """
    said = bytearray()
    async for block in answer.content.iter_chunked(BLOCK_BYTES):
        said += block
        if len(said) > MOST_BYTES:
            raise ToolError(f"The API answered more than {MOST_BYTES:,} bytes.")
    return bytes(said)


def own_tools(hub: Hub) -> list[AnyTool]:
    """Return these tools."""

    async def ask(given: AskArguments, _place: Place | None) -> Done:
        body = {
            "model": given.model, "max_tokens": given.max_tokens,
            "messages": [{"role": "user", "content": given.question}],
        }  # fmt: skip
        said = await hub.ask("POST", "/v1/chat/completions", ASK_S - 5, json=body)
        try:
            return Done(str(said["choices"][0]["message"].get("content") or "(it said nothing)"))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ToolError("What it answered is no answer of a model.") from None

    async def search_memory(given: SearchArguments, _place: Place | None) -> Done:
        found = await _found(hub, "/roost/v1/memory/search", given.query)
        return Done("\n".join(f"{fact.get('id')}: {fact.get('text')}" for fact in found) or "Nothing is remembered.")

    async def search_sessions(given: SearchArguments, _place: Place | None) -> Done:
        found = await _found(hub, "/roost/v1/sessions/search", given.query)
        lines = [f"{hit.get('session')} ({hit.get('title')}): {hit.get('snippet')}" for hit in found]
        return Done("\n".join(lines) or "Nothing is found.")

    asked = spec_of(
        "ask_model", "Ask a language model of the fleet a question.", AskArguments, Permission.NETWORK,
        timeout_s=ASK_S, safe_to_repeat=True,
    )  # fmt: skip
    facts = spec_of(
        "search_memory", "Search what the agent remembers for this key.", SearchArguments, Permission.READ,
        timeout_s=SEARCH_S, safe_to_repeat=True,
    )  # fmt: skip
    talks = spec_of(
        "search_sessions", "Search what was said in conversations of this key.", SearchArguments, Permission.READ,
        timeout_s=SEARCH_S, safe_to_repeat=True,
    )  # fmt: skip
    return [
        Tool(asked, AskArguments, ask, needs_place=False),
        Tool(facts, SearchArguments, search_memory, needs_place=False),
        Tool(talks, SearchArguments, search_sessions, needs_place=False),
    ]


async def _found(hub: Hub, path: str, query: str) -> list[Mapping[str, Json]]:
    said = await hub.ask("GET", path, SEARCH_S - 1, params={"q": query, "limit": str(MOST_HITS)})
    data = said.get("data")
    return [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
