"""The cost mode that an administrator chose: said by `/v1/key`, held by every conversation that chose none itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner

from roost.agent.hub import AgentHub, agents_of
from roost.agent.identity import HubIdentity
from roost.agent.measures import Measures
from roost.cli.limits import app as limits
from roost.context.budget import CostMode
from roost.ops.api_keys import parse_document


class Api:
    """An API that knows one key, and the cost mode of the fleet."""

    def __init__(self) -> None:
        self.cost_mode = ""
        self.default = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = dict(scope["headers"]).get(b"authorization") == b"Bearer alice"
        about = {"name": "alice", "role": "user", "cost_mode": self.cost_mode, "cost_mode_default": self.default}
        answer: Response = JSONResponse(about) if known else JSONResponse({}, 401)
        await answer(scope, receive, send)


async def test_a_conversation_has_the_fleets_mode_until_it_chooses(tmp_path: Path) -> None:
    api = Api()
    async with aiohttp.ClientSession() as http:
        hub = AgentHub(api, agents_of(tmp_path, http, "http://127.0.0.1:1"), Measures(), identity=HubIdentity(tmp_path))
        transport = httpx.ASGITransport(app=hub)
        headers = {"Authorization": "Bearer alice"}
        async with httpx.AsyncClient(transport=transport, base_url="http://hub", headers=headers) as client:
            session = (await client.post("/roost/v1/sessions", json={})).json()["id"]

            async def choose(**what: str) -> dict[str, Any]:
                answer = await client.post(f"/roost/v1/sessions/{session}/choices", json=what)
                assert answer.status_code == 200
                return dict(answer.json())

            assert (await choose())["cost_mode"] == "smart"
            api.default = "max"
            held = await choose()
            assert (held["cost_mode"], held["cost_mode_from"]) == ("max", "group_vars")
            api.cost_mode = "fast"
            held = await choose()
            assert (held["cost_mode"], held["cost_mode_from"]) == ("fast", "set at run time")
            assert (await choose(cost_mode="max"))["cost_mode"] == "max"
            api.cost_mode = ""
            assert (await choose())["cost_mode_from"] == "chosen in the session"
            assert (await client.get("/roost/v1/sessions", headers={"Authorization": "x"})).status_code == 401


@pytest.mark.parametrize("mode", [*CostMode])
def test_it_is_kept_with_the_limits(tmp_path: Path, mode: CostMode) -> None:
    keys = tmp_path / "keys.json"

    def run(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(limits, ["set-cost-mode", *words, "--file", str(keys), "--json"])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    assert not run(mode.value, "--dry-run")["applied"]
    assert not keys.exists()
    assert run(mode.value) == {"cost_mode": mode.value, "from": "set at run time", "applied": True}
    assert parse_document(keys.read_text()).cost_mode == mode.value
    assert run("default")["from"] == "group_vars"
    assert CliRunner().invoke(limits, ["set-cost-mode", "cheap", "--file", str(keys)]).exit_code != 0
