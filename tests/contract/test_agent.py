"""The agent over its API: a real service, a real model server, one small model in all three roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.engine import EngineProcess
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until

PATH = "/roost/v1/sessions"
OTHER = "another-key-of-the-tests"


@pytest.fixture(scope="module")
def hub(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Gateway and hub in one process, with a folder for sessions."""
    folder = tmp_path_factory.mktemp("hub")
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder, API_KEY, OTHER)),
        "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
        "ROOST_STATIC_ENDPOINTS": engine.base_url,
        "ROOST_STATE_DIR": str(folder / "state"),
    }
    (folder / "state").mkdir()
    with service(folder, environment) as running:
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
        yield running


@pytest.fixture
def client(hub: Service) -> Iterator[httpx.Client]:
    """A client with the first key."""
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=600) as made:
        yield made


def said(client: httpx.Client, session: str, text: str) -> list[dict[str, Any]]:
    """Say something, return the events."""
    body = {"text": text, "stream": True}
    with client.stream("POST", f"{PATH}/{session}/messages", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        return [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]


def test_a_turn_is_answered_recorded_measured_and_logged(client: httpx.Client, hub: Service) -> None:
    session = client.post(PATH, json={}).json()["id"]
    events = said(client, session, "What is the capital of France?")
    kinds = [event["type"] for event in events]
    assert kinds[0] == "turn"
    assert "text" in kinds
    metrics = next(event for event in events if event["type"] == "metrics")
    assert metrics["delegation_mode"] == "single"
    assert metrics["preflight"].startswith("skipped: ")
    assert metrics["roles"]["main"]["prompt_tokens"] > 0
    records = client.get(f"{PATH}/{session}").json()["records"]
    assert [r["body"]["role"] for r in records if r["body"]["kind"] == "message"] == ["user", "assistant"]
    assert [r["body"]["values"]["finished"] for r in records if r["body"]["kind"] == "metrics"] == [True]
    log = hub.log.read_text()
    assert '"delegation_mode": "single"' in log
    assert '"preflight": "skipped: ' in log
    scraped = client.get("/metrics/agent").text
    assert 'roost_agent_turns_total{ended="finished",mode="single"}' in scraped


def test_a_tool_that_only_reads_is_used_end_to_end(client: httpx.Client) -> None:
    first = client.post(PATH, json={}).json()["id"]
    said(client, first, "What is the capital of France?")
    second = client.post(PATH, json={}).json()["id"]
    events = said(client, second, "Recall: did we speak of France earlier? Answer yes or no.")
    preflight = next(event for event in events if event.get("name") == "preflight")
    assert preflight["outcome"].split(":")[0] in {"fired", "skipped"}
    calls = [event for event in events if event["type"] == "tool_call"]
    results = [event for event in events if event["type"] == "tool_result"]
    assert [call["tool"] for call in calls] == ["recall"] * len(calls)
    assert len(results) >= len(calls)
    assert bool(calls) == (preflight["outcome"].startswith("fired"))
    assert any(event["type"] == "text" for event in events)


def test_another_key_sees_nothing_of_it(client: httpx.Client, hub: Service) -> None:
    session = client.post(PATH, json={}).json()["id"]
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {OTHER}"}) as other:
        for method, path in [("GET", ""), ("POST", "/messages"), ("GET", "/events"), ("POST", "/cancel")]:
            answer = other.request(method, f"{PATH}/{session}{path}", json={"text": "x"} if method == "POST" else None)
            assert answer.status_code == 404, (method, path)
    assert httpx.get(f"{hub.url}{PATH}").status_code == 401


def test_openapi_lists_the_routes(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {PATH, f"{PATH}/{{session}}/messages", f"{PATH}/{{session}}/events", "/v1/models"} <= set(paths)


def test_memory_of_gateway_and_hub_together_stays_small(client: httpx.Client, hub: Service) -> None:
    said(client, client.post(PATH, json={}).json()["id"], "Say hello.")
    status = Path(f"/proc/{hub.process.pid}/status").read_text()
    rss = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000
    assert rss <= 220, f"{rss:.0f} MB"
    print(f"{rss:.0f} MB")
