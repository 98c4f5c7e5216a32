"""The agent with hands: a real model server, a real service, a real `roost worker`, files that are really there.

Calls are decided by a model of 135 million parameters under the grammar of the tools that are offered: one, so that it
can. What it writes into its arguments is its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from roost.agent.audit.log import AuditLog
from roost.agent.receipts import Receipt, missing
from roost.agent.tool import ToolCall, ToolResult
from roost.agent.tools.read import READ
from tests.support.engine import EngineProcess
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until
from tests.support.worker import Home, worker

PATH = "/roost/v1/sessions"
OTHER = "another-key-of-the-tests"
ASKED = "Read the file notes.txt"
SECRET = "The password of the garden gate is heliotrope-42."

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the hub keeps sessions and the audit log."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def hub(engine: EngineProcess, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Gateway and hub in one process."""
    folder = tmp_path_factory.mktemp("hub")
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder, API_KEY, OTHER)),
        "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
        "ROOST_STATIC_ENDPOINTS": engine.base_url,
        "ROOST_STATE_DIR": str(state),
    }
    with service(folder, environment) as running:
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
        yield running


@pytest.fixture(scope="module")
def home(hub: Service, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A user with one project, named as a workspace by the command."""
    folder = tmp_path_factory.mktemp("home")
    project = folder / "project"
    project.mkdir()
    (project / "notes.txt").write_text(f"{SECRET}\n")
    found = Home(folder, hub.url, API_KEY)
    added = json.loads(found.run("workspace", "add", str(project), "--json").stdout)
    assert added["name"] == "project"
    return found


@pytest.fixture
def client(hub: Service) -> Iterator[httpx.Client]:
    """A client with the first key."""
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=600) as made:
        yield made


def said(client: httpx.Client, session: str, text: str, until: str = "end") -> list[dict[str, Any]]:
    """Say something, return the events up to one of a kind; leaving there ends the turn."""
    events: list[dict[str, Any]] = []
    with client.stream("POST", f"{PATH}/{session}/messages", json={"text": text, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line[5:]))
                if events[-1]["type"] == until:
                    break
    return events


def new(client: httpx.Client) -> str:
    return str(client.post(PATH, json={}).json()["id"])


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def test_without_a_worker_the_answer_says_so_and_how_to_start_one(client: httpx.Client) -> None:
    events = said(client, new(client), "What is in `notes.txt`?")
    assert any("roost worker" in e["text"] and "roost workspace add" in e["text"] for e in of(events, "notice"))
    assert not of(events, "tool_call")
    assert not of(events, "metrics")[0]["finished"]


def test_a_file_is_read_and_receipts_and_audit_log_show_it(client: httpx.Client, home: Home, state: Path) -> None:
    with worker(home, ["--only", "read"]) as running:
        session = new(client)
        events = said(client, session, ASKED, until="tool_result")  # what follows takes minutes where much runs
        client.post(f"{PATH}/{session}/cancel")
        (connected,) = client.get("/roost/v1/workers").json()["data"]
        assert connected["tools"] == ["read"]
        assert [folder["name"] for folder in connected["workspaces"]] == ["project"]
        other = {"Authorization": f"Bearer {OTHER}"}
        assert client.get("/roost/v1/workers", headers=other).json()["data"] == []
    assert any(SECRET in event["text"] for event in of(events, "tool_result") if event["outcome"] == "ok")
    (preflight,) = [event for event in events if event.get("name") == "preflight"]
    assert preflight["outcome"].startswith("fired")
    bodies = [record["body"] for record in client.get(f"{PATH}/{session}").json()["records"]]
    calls = [ToolCall.model_validate(body["call"]) for body in bodies if body["kind"] == "tool_call"]
    results = [ToolResult.model_validate(body["result"]) for body in bodies if body["kind"] == "tool_result"]
    assert results[0].id == calls[0].id
    receipt = Receipt(calls[0], READ.spec.permission, results[0])
    assert missing(ASKED, [READ.spec], [receipt]) == []
    assert missing(ASKED, [READ.spec], []) != []
    asked = [call.id for call in calls]
    assert {event["id"] for event in running.events("call")} <= set(asked)
    log = AuditLog(state / "audit")
    assert log.verify().intact
    mine = [(entry.action, entry.detail["call"]) for entry in log.tail(1000) if entry.session == session]
    assert mine[:2] == [("tool.call", asked[0]), ("tool.result", asked[0])]
