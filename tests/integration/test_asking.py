"""Asked before a tool runs: a real service, a real `roost worker`, a scripted model; over the API and by verbs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from roost.agent.sandbox.parent import Bubblewrap
from tests.browser.support import KEYS, Site, Stage, running_site
from tests.browser.test_agent import decides
from tests.support.worker import Home, worker

PATH = "/roost/v1/sessions"
ASKED = "Run the shell command"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine"),
]


@dataclass
class Scene:
    """A service, a worker with one project, and a file that the model wants to remove."""

    site: Site
    home: Home
    project: Path
    client: httpx.Client

    @property
    def file(self) -> Path:
        return self.project / "a.tmp"

    def begin(self) -> str:
        self.file.write_text("x")
        return str(self.client.post(PATH, json={}).json()["id"])

    def said(self, session: str, answer: str = "", **more: bool) -> list[dict[str, Any]]:
        """Say it and answer what is asked; return the events."""
        body: dict[str, Any] = {"text": ASKED, "stream": True, **more}
        events: list[dict[str, Any]] = []
        with self.client.stream("POST", f"{PATH}/{session}/messages", json=body) as got:
            for line in got.iter_lines():
                if not line.startswith("data:"):
                    continue
                events.append(json.loads(line.removeprefix("data:")))
                if events[-1]["type"] == "question":
                    if not answer:
                        break
                    where = f"{PATH}/{session}/questions/{events[-1]['id']}"
                    assert len(self.client.get(f"{PATH}/{session}/questions").json()["data"]) == 1
                    assert self.client.post(where, json={"answer": answer}).status_code == 200
                    assert self.client.post(where, json={"answer": answer}).status_code == 404
        return events

    def records(self, session: str) -> list[dict[str, Any]]:
        return [one["body"] for one in self.client.get(f"{PATH}/{session}").json()["records"]]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    project = tmp_path / "home" / "project"
    project.mkdir(parents=True)
    key_file = tmp_path / "engine-key"
    key_file.write_text("engine-key")
    with Stage() as stage:
        engine = stage.engine(says=decides("shell", {"command": "find . -name '*.tmp' -delete"}))
        with running_site(tmp_path, f"main={engine.url}", key_file) as site:
            home = Home(project.parent, site.url, KEYS["user"])
            home.run("workspace", "add", str(project))
            headers = {"Authorization": f"Bearer {KEYS['user']}"}
            with worker(home), httpx.Client(base_url=site.url, headers=headers, timeout=60) as client:
                yield Scene(site, home, project, client)


def test_it_is_answered_over_the_api_and_what_is_allowed_for_good_is_listed_and_taken_back(scene: Scene) -> None:
    session = scene.begin()
    assert "question.answered" in {event["type"] for event in scene.said(session, "no", answers=True)}
    assert scene.file.exists()
    scene.said(session, "always", answers=True)
    assert not scene.file.exists()
    kept = json.loads(scene.home.run("allowed", "list", "--json").stdout)
    assert [(one["tool"], one["mark"]) for one in kept] == [("shell", "shell: removes what it finds")]
    session = scene.begin()
    assert not [event for event in scene.said(session) if event["type"] == "question"]
    assert not scene.file.exists()
    assert "asked about again" in scene.home.run("allowed", "remove", "shell").stdout
    session = scene.begin()
    scene.said(session)
    assert scene.file.exists()
    entries = [json.loads(line) for line in (scene.site.folder / "state/audit/audit.jsonl").read_text().splitlines()]
    answers = [entry["detail"] for entry in entries if entry["action"] == "tool.answered"]
    assert [(one["answer"], one["by"]) for one in answers] == [("no", "user"), ("always", "user")]
    headers = {"Authorization": f"Bearer {KEYS['admin']}"}
    metrics = httpx.get(f"{scene.site.url}/metrics/agent", headers=headers, timeout=60).text
    assert 'roost_agent_questions_total{result="asked"} 2.0' in metrics
    assert 'roost_agent_questions_total{result="allowed"} 2.0' in metrics
    assert 'roost_agent_questions_total{result="refused"} 2.0' in metrics


def test_one_answer_without_a_terminal_is_refused_with_what_to_set(scene: Scene) -> None:
    scene.file.write_text("x")
    refused = scene.home.run("agent", ASKED)
    assert "--allow shell" in refused.stderr
    assert scene.file.exists()
    scene.home.run("agent", "--allow", "shell", ASKED)
    assert not scene.file.exists()


def test_killed_while_it_asks_nothing_runs_and_the_conversation_says_so(scene: Scene) -> None:
    session = scene.begin()
    stream = scene.client.stream(
        "POST", f"{PATH}/{session}/messages", json={"text": ASKED, "stream": True, "answers": True}
    )
    with stream as got:
        lines = (line for line in got.iter_lines() if '"question"' in line)
        asked = json.loads(next(lines).removeprefix("data:"))
        assert scene.site.service
        scene.site.service.process.kill()
        scene.site.service.process.wait(30)
    with scene.site.up():
        bodies = scene.records(session)
        answered = [body["detail"] for body in bodies if body.get("name") == "question.answered"]
        assert [(one["id"], one["answer"]) for one in answered] == [(asked["id"], "unanswered")]
        result = next(body["result"] for body in bodies if body["kind"] == "tool_result")
        assert (result["outcome"], scene.file.exists()) == ("refused", True)
        assert scene.client.get(f"{PATH}/{session}/questions").json()["data"] == []
        where = f"{PATH}/{session}/questions/{asked['id']}"
        assert scene.client.post(where, json={"answer": "yes"}).status_code == 404
        assert scene.file.exists()
