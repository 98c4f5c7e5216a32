"""`roost route` as a user types it; what asks the API asks the real gateway, in front of scripted model servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from roost.cli.verbs import run_command_line
from roost.fleet.route_store import FileRouteStore
from roost.gateway.choice.semantic import parse_router, shipped
from roost.gateway.choice.training.asking import ask_for_examples, requests_in
from roost.gateway.choice.training.examples import read_examples
from tests.support.gateway import API_KEY
from tests.unit.gateway.choice.fleet import fleet


class Shell:
    """Types commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run `roost route WORDS`; return exit code, what was printed and what was complained."""
        self._monkeypatch.setattr("sys.argv", ["roost", "route", *words])
        try:
            code = run_command_line()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    async def ask(self, url: str, *words: str) -> tuple[int, str, str]:
        """Run it against the API at `url`."""
        self._monkeypatch.setenv("ROOST_API", url)
        self._monkeypatch.setenv("ROOST_API_KEY", API_KEY)
        return await asyncio.to_thread(self.run, *words)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """Yield something to type commands into; what the gateway beside it logs is not printed."""
    with capture_logs():
        yield Shell(monkeypatch, capsys)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return examples of two subjects that one word tells apart."""
    path = tmp_path / "mine.jsonl"
    lines = [
        json.dumps({"text": f"{word} number {n} about our {word}", "subject": subject})
        for n in range(40)
        for word, subject in (("contract", "law"), ("compiler", "coding"))
    ]
    path.write_text("\n".join(lines))
    return path


async def test_a_request_is_explained_and_decisions_are_listed(tmp_path: Path, shell: Shell) -> None:
    async with fleet(tmp_path, "main", "coding") as site:
        text = "Write a Rust function that reverses a linked list, with unit tests."
        code, out, err = await shell.ask(site.gateway.url, "explain", text)
        assert (code, err) == (0, "")
        assert out.startswith("coding (code), because: it is its subject.")
        assert "Subject    coding" in out
        code, out, _ = await shell.ask(site.gateway.url, "explain", text, "--json")
        document: dict[str, Any] = json.loads(out)
        assert document["reason"] == "expert"
        await site.ask(text)
        _, out, _ = await shell.ask(site.gateway.url, "log")
        assert out.splitlines()[1].split()[1:5] == ["admin", "chat", "coding", "expert"]
        _, out, _ = await shell.ask(site.gateway.url, "log", "--json", "--limit", "1")
        assert [entry["slot"] for entry in json.loads(out)] == ["coding"]


async def test_a_trained_router_is_used_without_a_restart(tmp_path: Path, shell: Shell, mine: Path) -> None:
    file = tmp_path / "router.json"
    words = ("--examples", str(mine), "--no-templates", "--file", str(file))
    async with fleet(tmp_path, "main", "law", route_file=file) as site:
        assert (await site.ask("Is this contract about our contract?"))[1] == "mid"
        code, out, err = await asyncio.to_thread(shell.run, "train", *words)
        assert (code, err) == (0, "")
        assert "`roost route undo` goes back" in out
        assert (await site.ask("Is this contract about our contract?"))[1] == "law"
        assert (await asyncio.to_thread(shell.run, "undo", "--file", str(file)))[0] == 0
        assert (await site.ask("Is this contract about our contract?"))[1] == "mid"


def test_what_is_trained_is_shown_measured_and_can_be_taken_back(tmp_path: Path, shell: Shell, mine: Path) -> None:
    file = tmp_path / "router.json"
    words = ("train", "--examples", str(mine), "--no-templates", "--file", str(file), "--json")
    code, out, _ = shell.run(*words, "--dry-run")
    document: dict[str, Any] = json.loads(out)
    assert (code, document["applied"], document["held_out"]["right"]) == (0, False, 1.0)
    assert not file.exists()
    shell.run(*words)
    assert parse_router(file.read_text()).file.subjects == ("coding", "law")
    code, out, _ = shell.run("show", "--file", str(file))
    assert "coding, law" in out
    assert "goes back" in out
    assert shell.run("reset", "--file", str(file), "--dry-run")[1].endswith("would be used.\n")
    assert FileRouteStore(file).load()[0].present
    shell.run("reset", "--file", str(file))
    assert FileRouteStore(file).load()[0].present == ""
    _, out, _ = shell.run("show", "--file", str(file), "--json")
    assert json.loads(out)["origin"] == shipped().file.origin
    assert "one trained here" in shell.run("undo", "--file", str(file))[1]


def test_nothing_before_means_nothing_to_undo(tmp_path: Path, shell: Shell) -> None:
    code, _, err = shell.run("undo", "--file", str(tmp_path / "router.json"))
    assert code != 0
    assert "no router before" in err
    assert "fix: " in err


def test_bad_examples_change_nothing(tmp_path: Path, shell: Shell) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x"}')
    code, _, err = shell.run("train", "--examples", str(bad), "--file", str(tmp_path / "router.json"))
    assert code == 2
    assert "line 1" in err
    assert not (tmp_path / "router.json").exists()
    (tmp_path / "router.json").write_text("{")
    code, _, err = shell.run("show", "--file", str(tmp_path / "router.json"))
    assert code != 0
    assert "roost route reset" in err


async def test_examples_come_from_templates_files_and_models(tmp_path: Path, shell: Shell, mine: Path) -> None:
    out_file = tmp_path / "all.jsonl"
    code, out, _ = shell.run("data", "--out", str(out_file), "--examples", str(mine), "--json")
    assert code == 0
    assert json.loads(out)["by_subject"]["law"] == 40
    assert {example.subject for example in read_examples(out_file)} >= {"main", "coding", "law", "memory"}
    async with fleet(tmp_path, "main") as site:
        words = ("data", "--no-templates", "--ask", "law", "--each", "3", "--out", str(out_file))
        code, out, err = await shell.ask(site.gateway.url, *words)
        assert (code, err) == (0, "")
        asked = read_examples(out_file)
        assert [example.text for example in asked] == ["The capital of France is Paris."]  # what the script answers
        assert asked[0].subject == "law"
    code, out, _ = shell.run("data", "--dry-run", "--out", str(tmp_path / "none"))
    assert "would be written" in out
    assert not (tmp_path / "none").exists()


def test_of_an_answer_what_looks_like_requests_is_taken() -> None:
    answer = 'Sure, here they are:\n1. Is this lease valid?\n- "Can I cancel my gym contract?"\n\nok\n' + "x" * 500
    assert list(requests_in(answer)) == ["Is this lease valid?", "Can I cancel my gym contract?"]
    told: list[tuple[str, int]] = []
    found = ask_for_examples(["law"], 2, lambda _q: answer, progress=lambda *said: told.append(said))
    assert [example.subject for example in found] == ["law", "law"]
    assert told == [("law", 2)]
    assert len(ask_for_examples(["law"], 50, lambda _q: answer)) == 2
