"""`roost chat` at a real terminal with nothing scripted: the embedded model, the service, a worker, files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.engine import MODEL
from tests.support.gateway import API_KEY, Service
from tests.support.terminal import PROMPT, Terminal, roost_at_terminal
from tests.support.worker import Home, worker

PATH = "/roost/v1/sessions"
PATIENCE_S = 300.0  # a busy machine with two cores
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
BEFORE = "What stood here before.\n"
LEAST_STEPS = 3
"""So many times more was to be seen of an answer before it was whole."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def here(hub: Service, tmp_path: Path) -> Iterator[Terminal]:
    """`roost chat` at a terminal."""
    terminal = roost_at_terminal(hub.url, API_KEY, tmp_path, ["chat"], {}, PATIENCE_S)
    yield terminal
    terminal.leave()


@pytest.fixture
def client(hub: Service) -> Iterator[httpx.Client]:
    """A client with the key of the chat."""
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=60) as made:
        yield made


def words_of(text: str) -> str:
    """Return text without styles, marks of Markdown and what lines are broken by."""
    return re.sub(r"[\s*_`#>-]+", "", STYLES.sub("", text))


def answer(here: Terminal) -> tuple[str, int]:
    """Read until the next prompt; return what was shown, and how many times more was to be seen before."""
    steps = 0
    while PROMPT not in here.text:
        here.wait_for_more()
        steps += 1
    return here.take(PROMPT), steps


def test_a_question_is_answered_as_it_is_written_counted_and_kept(here: Terminal, client: httpx.Client) -> None:
    here.take(PROMPT)
    here.type("What is the capital of France?\r")
    seen, steps = answer(here)
    (session,) = client.get(PATH).json()["data"]
    records = client.get(f"{PATH}/{session['id']}").json()["records"]
    said = [record["body"] for record in records if record["body"]["kind"] == "message"]
    assert [message["role"] for message in said] == ["user", "assistant"]
    assert said[1]["text"].strip()
    assert words_of(said[1]["text"]) in words_of(seen)
    assert steps >= LEAST_STEPS
    here.type("/cost\r")
    cost = here.take(PROMPT)
    (metrics,) = [record["body"]["values"] for record in records if record["body"]["kind"] == "metrics"]
    assert MODEL in cost
    assert f" {metrics['roles']['main']['prompt_tokens']} " in STYLES.sub("", cost)
    assert "1 turns, 0 calls" in cost
    here.type("/sessions\r")
    assert session["id"] in here.take(PROMPT)
    here.type("/quit\r")
    assert here.end() == 0


def test_a_file_that_was_written_is_put_back(
    here: Terminal, hub: Service, client: httpx.Client, tmp_path: Path
) -> None:
    project = tmp_path / "home" / "project"
    project.mkdir(parents=True)
    (project / "notes.txt").write_text(BEFORE)
    home = Home(tmp_path / "home", hub.url, API_KEY)
    json.loads(home.run("workspace", "add", str(project), "--json").stdout)
    here.take(PROMPT)
    with worker(home, ["--only", "write"]):  # with undo at hand, this model takes back at once what it has written
        assert client.get("/roost/v1/workers").json()["data"]
        here.type("Write the text 'Owls hunt at night.' to notes.txt\r")
        shown = STYLES.sub("", here.take("← write ok"))  # what follows takes minutes where much runs
        assert "→ write" in shown
        here.type("\x1b")
        here.take(PROMPT)
        assert {file.name: file.read_text() for file in project.iterdir()} != {"notes.txt": BEFORE}
    with worker(home, ["--only", "undo"]):
        assert client.get("/roost/v1/workers").json()["data"]
        here.type("/undo\r")
        here.take(PROMPT)
        assert {file.name: file.read_text() for file in project.iterdir()} == {"notes.txt": BEFORE}
        here.type("\x04")
        assert here.end() == 0
