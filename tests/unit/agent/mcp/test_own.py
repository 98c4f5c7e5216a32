"""What our MCP server asks the API for."""

from __future__ import annotations

import aiohttp
import pytest
from fastapi import APIRouter, Request

from roost.agent.mcp.own import Hub, own_tools
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
