"""The agent over its API: a real service, a real model server, one small model in all three roles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.gateway import API_KEY, Service

PATH = "/roost/v1/sessions"


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


def test_what_is_remembered_is_put_before_the_model_and_found_by_words(client: httpx.Client) -> None:
    memory = "/roost/v1/memory"
    client.post(memory, json={"text": "The harbour master of Ostrava is called Odile."}).raise_for_status()
    found = client.get(f"{memory}/search", params={"q": "Who is the harbour master?"}).json()
    assert [fact["source"] for fact in found["data"]] == ["user"]
    assert (found["by"], found["why"]) == ("words", "there is no embedding model")
    session = client.post(PATH, json={}).json()["id"]
    events = said(client, session, "Who is the harbour master of Ostrava?")
    assert "Odile" in "".join(event["text"] for event in events if event["type"] == "text")
