"""The agent's door: who only looks at its metrics has it not assembled, and is checked as for the gateway's."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import httpx
import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from roost.cli.serve_agent import AgentDoor


async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
    """Be a gateway that shows its metrics to one key, and knows who that is."""
    known = dict(scope["headers"]).get(b"authorization") == b"Bearer watcher"
    answer: Response = JSONResponse({"error": {"message": "who?"}}, 401)
    if known:
        about = {"name": "watcher", "role": "user"}
        pages = {"/metrics": "roost_up 1\n", "/metrics/agent": ""}
        answer = Response(pages[scope["path"]]) if scope["path"] in pages else JSONResponse(about)
    await answer(scope, receive, send)


@pytest.mark.parametrize(("key", "status", "text"), [("watcher", 200, ""), ("x", 401, '{"error":{"message":"who?"}}')])
async def test_a_look_at_the_metrics_assembles_nothing(tmp_path: Path, key: str, status: int, text: str) -> None:
    async with aiohttp.ClientSession() as http:
        door = AgentDoor(gateway, tmp_path / "state", http, "http://127.0.0.1:1", None)
        transport = httpx.ASGITransport(app=door)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://hub", headers=headers) as client:
            answer = await client.get("/metrics/agent")
            assert (answer.status_code, answer.text) == (status, text)
            assert not (tmp_path / "state").exists()
            if status == 200:
                assert (await client.get("/roost/v1/sessions")).json()["data"] == []
                assert "roost_agent_turns" in (await client.get("/metrics/agent")).text
        await door.close()
