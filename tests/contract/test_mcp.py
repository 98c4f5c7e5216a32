"""A tool of a server that others wrote (MCP), `mcp-server-time`, called for a real model in a real worker's sandbox.

A model of 135 million parameters does not choose such a tool by itself. The request names it whole, so it is called
whatever the Router saw; what the model writes, under the grammar of the tool's own schema, are the arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from bench.environments import environment

from roost.agent.sandbox.parent import Bubblewrap
from tests.contract.test_worker import new, of, said
from tests.support.gateway import API_KEY, Service
from tests.support.net import wait_until
from tests.support.worker import Home, worker

PATH = "/roost/v1/sessions"
TOOL = "mcp__time__get_current_time"
ZONE = "Asia/Tokyo"

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine"),
]


@pytest.fixture
def client(hub: Service) -> Iterator[httpx.Client]:
    """A client with the key of the worker."""
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=600) as made:
        yield made


@pytest.fixture
def home(hub: Service, tmp_path: Path) -> Home:
    """A user who named that server, with what it is started from to read."""
    made = environment("mcp-server-time")
    found = Home(tmp_path, hub.url, API_KEY)
    read = [f"--read={path}" for path in (made, sys.base_prefix)]
    found.run("mcp", "add", "time", *read, "--", str(made / "bin/mcp-server-time"), f"--local-timezone={ZONE}")
    return found


def test_what_the_tool_says_is_in_the_conversation(home: Home, client: httpx.Client) -> None:
    def offered() -> bool:
        return TOOL in client.get("/roost/v1/workers").json()["data"][0]["tools"]

    with worker(home, ["--only", TOOL]) as running:
        wait_until(offered, 120, "its tool")
        session = new(client)
        asked_at = datetime.now(UTC).replace(microsecond=0)
        events = said(client, session, f"Use {TOOL} with the timezone {ZONE}", until="tool_result")
        client.post(f"{PATH}/{session}/cancel")  # what follows takes minutes where much runs
    (call,), (result,) = of(events, "tool_call"), of(events, "tool_result")
    assert (call["tool"], result["outcome"]) == (TOOL, "ok")
    told = json.loads(result["text"])
    assert call["arguments"] == {"timezone": told["timezone"]}
    assert asked_at <= datetime.fromisoformat(told["datetime"]) <= datetime.now(UTC)
    assert [(e["id"], e["tool"]) for e in running.events("call")] == [(call["id"], TOOL)]
    bodies = [record["body"] for record in client.get(f"{PATH}/{session}").json()["records"]]
    assert [body["result"]["text"] for body in bodies if body["kind"] == "tool_result"] == [result["text"]]
