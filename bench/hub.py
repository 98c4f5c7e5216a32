"""The memory of gateway, web page and agent in one process, with the packages of the image, after conversations.

The turns are real: over the API, each answered by a real model server, with what the agent remembers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from tests.support.engine import llama_server
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until

from bench.added import tree_rss_mb
from bench.environments import AGENT, environment
from bench.results import ROOT, save

MAX_RSS_MB = 220.0
SESSIONS, MEMORY = "/roost/v1/sessions", "/roost/v1/memory"
PATIENCE_S = 600.0


def say(client: httpx.Client, session: str, text: str) -> bool:
    """Have one turn; say whether it was answered to its end."""
    found = []
    body = {"text": text, "stream": True}
    with client.stream("POST", f"{SESSIONS}/{session}/messages", json=body) as answer:
        answer.raise_for_status()
        found = [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]
    return any(event["type"] == "metrics" for event in found)


def use(running: Service, conversations: int, turns: int) -> dict[str, Any]:
    """Talk, remember and look; return the figures."""
    found: dict[str, Any] = {"rss_at_start_mb": tree_rss_mb(running.process.pid)}
    most, answered = found["rss_at_start_mb"], 0
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=PATIENCE_S) as client:
        for number in range(conversations):
            client.post(
                MEMORY, json={"text": f"The harbour of town {number} opens at {number % 12}."}
            ).raise_for_status()
            session = client.post(SESSIONS, json={}).json()["id"]
            for turn in range(turns):
                answered += say(client, session, f"When does the harbour of town {number - turn} open?")
                most = max(most, tree_rss_mb(running.process.pid))
            client.get(f"{SESSIONS}/{session}").raise_for_status()
            for page in ("/", "/metrics", "/metrics/agent", "/v1/models"):
                client.get(page).raise_for_status()
    return {
        **found,
        "conversations": conversations,
        "turns": conversations * turns,
        "turns_answered": answered,
        "rss_most_mb": most,
        "rss_mb": tree_rss_mb(running.process.pid),
    }


def measure(folder: Path, conversations: int, turns: int) -> dict[str, Any]:
    """Return all figures."""
    state = folder / "state"
    state.mkdir()
    with llama_server(folder) as engine:
        variables = {
            "ROOST_API_KEYS_FILE": str(write_keys(folder)),
            "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
            "ROOST_STATIC_ENDPOINTS": engine.base_url,
            "ROOST_STATE_DIR": str(state),
        }
        with service(folder, variables, python=environment(AGENT) / "bin/python") as running:
            wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
            return use(running, conversations, turns)


def main() -> None:
    """Measure, print, save; exit 1 if the limit was missed or a turn had no answer."""
    parser = argparse.ArgumentParser(prog="bench.hub", description=__doc__)
    parser.add_argument("--conversations", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3, help="of each conversation")
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), chosen.conversations, chosen.turns)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not chosen.no_save:
        sys.stdout.write(f"{save('hub', found).relative_to(ROOT)}\n")
    sys.exit(0 if found["rss_most_mb"] <= MAX_RSS_MB and found["turns_answered"] == found["turns"] else 1)


if __name__ == "__main__":
    main()
