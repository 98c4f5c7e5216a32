"""What our MCP server asks the API for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from roost.agent.mcp.own import MOST_BYTES, Hub, own_tools
from roost.agent.tools.errors import ToolError
from roost.gateway.errors import ApiError
from tests.support.routes import RoutesServer, owner_of


async def test_a_model_is_asked_with_the_key_and_refusals_are_told() -> None:
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, object]:
        body = await request.json()
        if body["model"] == "none":
            raise ApiError(404, "There is no model none.")
        text = f"{owner_of(request)} asks {body['model']}: {body['messages'][0]['content']} {body['max_tokens']}"
        return {"choices": [{"message": {"content": text}}] if body["model"] == "auto" else []}

    with RoutesServer(router, lambda: None) as server:
        async with aiohttp.ClientSession() as http:
            ask = own_tools(Hub(http, server.url, "anna"))[0]
            given = ask.arguments.model_validate({"question": "why?"})
            assert (await ask.act(given, None)).text == "anna asks auto: why? 1024"
            for model, why in {"none": "no model none", "odd": "no answer of a model"}.items():
                with pytest.raises(ToolError, match=why):
                    await ask.act(ask.arguments.model_validate({"question": "q", "model": model}), None)
            search = own_tools(Hub(http, server.url, "anna"))[1]
            with pytest.raises(ToolError, match="status 404"):
                await search.act(search.arguments.model_validate({"query": "q"}), None)


async def test_an_answer_is_read_to_its_end_in_however_many_pieces_it_comes_and_no_further_than_is_meant() -> None:
    router = APIRouter()
    text = "x" * 400_000

    @router.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        wanted = (await request.json())["model"]

        async def said() -> AsyncIterator[bytes]:
            whole = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            for start in range(0, len(whole), 50_000):
                yield whole[start : start + 50_000]
                await asyncio.sleep(0)
            for _ in range(MOST_BYTES // 50_000 if wanted == "long" else 0):
                yield b" " * 50_000

        return StreamingResponse(said(), status_code=500 if wanted == "refuses" else 200)

    with RoutesServer(router, lambda: None) as server:
        async with aiohttp.ClientSession() as http:
            ask = own_tools(Hub(http, server.url, "anna"))[0]
            assert (await ask.act(ask.arguments.model_validate({"question": "q"}), None)).text == text
            for model, why in {"long": f"more than {MOST_BYTES:,}", "refuses": "status 500"}.items():
                with pytest.raises(ToolError, match=why):
                    await ask.act(ask.arguments.model_validate({"question": "q", "model": model}), None)
