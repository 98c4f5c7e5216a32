"""Jobs' way to the hub: what is made of answers that are none."""

from __future__ import annotations

import pytest
from aiohttp import web

from roost.agent.technician.reach import HubRunner
from roost.agent.tool import Outcome, ToolCall
from roost.ops.errors import RoostError
from tests.support.web_server import serving

CALL = ToolCall(id="1", name="mcp__x__y", arguments={}, session="s")


@pytest.mark.parametrize("text", ["<html>", "[]", '{"data": [{}]}', '{"data": 1}', "", '"x"'])
async def test_an_answer_that_is_none_of_a_hub_ends_in_a_known_way(text: str) -> None:
    async def anything(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    async with serving(app) as url:
        hub = HubRunner(url, "k", None, (0.01,))
        try:
            assert (await hub.run(CALL)).outcome is Outcome.UNKNOWN  # it may have been made
            assert (await hub.recall(CALL)).outcome is Outcome.UNKNOWN
            assert not await hub.has("m")
            for ask in (hub.tools(), hub.tools_at("a/b")):
                with pytest.raises(RoostError, match="no hub of this version"):
                    await ask
        finally:
            await hub.close()
