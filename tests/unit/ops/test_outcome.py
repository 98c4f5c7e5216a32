"""The last words of a run, and the line that counts seconds while it lasts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from roost.ops import outcome
from roost.ops.progress import CLEAR_LINE, FAILED, OK, draw, running_line, step_line

SITE = {
    "release": "r", "runtime": "local", "api": "http://127.0.0.1:8360", "web": "http://127.0.0.1:8360/",
    "nomad": "https://127.0.0.1:4646", "nomad_ca": "/t/ca.pem", "nomad_cert": "/t/cli.pem", "nomad_key": "/t/k",
    "nomad_token_file": "/s/token", "api_key_file": "/s/api-key", "agent_job": "roost-agent", "slots": [],
    "catalogue": "/c", "models_dir": "/m", "state_dir": "/v", "cache_dir": "/x", "log_dir": "/l",
    "artifacts_dir": "/a", "install_dir": "/o",
}  # fmt: skip
REPORT = {"question": "Capital?", "answer": "The capital\nis Paris. ", "model": "small", "tokens_per_s": 51.7}


def said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, content: object, also: str | None = None
) -> str:
    (tmp_path / "file").write_text(json.dumps(content))
    words = [what, str(tmp_path / "file")]
    if also is not None:
        (tmp_path / "also").write_text(also)
        words.append(str(tmp_path / "also"))
    assert outcome.main(words) == 0
    return capsys.readouterr().out


def test_a_good_run_ends_with_the_answer_and_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site.json").write_text(json.dumps({**SITE, "api_listen": "https://192.0.2.1:8443"}))
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "site.json"))
    text = said(tmp_path, capsys, "final", REPORT)
    assert "The capital is Paris." in text
    assert "small, 52 tokens/s" in text
    for place in ("http://127.0.0.1:8360/v1", "https://127.0.0.1:4646/", "/s/api-key", "https://192.0.2.1:8443/v1"):
        assert place in text


def test_a_good_run_tells_of_a_better_plan_where_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "site.json"))
    words = "This machine could serve gemma-3n-e4b-it: sudo roost setup"
    for better in (words, ""):
        (tmp_path / "site.json").write_text(json.dumps({**SITE, "better_plan": better}))
        text = said(tmp_path, capsys, "final", REPORT)
        assert (words in text) == bool(better)
        assert text.rstrip().endswith(words if better else "roost --help")


def test_a_check_lists_and_counts_what_would_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(tmp_path, capsys, "check", {"changed_tasks": ["docker: Install"]}, "program: Install release x\n")
    assert "would change 2 things" in text
    assert text.index("program: Install release x") < text.index("docker: Install")
    assert "would change nothing" in said(tmp_path, capsys, "check", {"changed_tasks": []}, "")


def test_a_failure_is_one_line_of_three_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"step": "jobs", "reason": "It\nis\tbroken.", "fix": "Mend it."}
    assert said(tmp_path, capsys, "failure", {"failure": failure}) == "jobs\tIt\x1fis broken.\tMend it.\n"
    assert said(tmp_path, capsys, "failure", {"failed": True}) == "\n"


def test_a_file_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome.main(["check", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err


def test_lines_stand_in_columns() -> None:
    assert step_line(OK, "docker", 13.6, "2 changes") == "✓ docker       14 s   2 changes"
    assert step_line(OK, "preflight", 1) == "✓ preflight     1 s"
    assert step_line(FAILED, "docker", 1, colour=True).startswith("\x1b[31m✗\x1b[0m docker")
    assert len(running_line("nomad", "x" * 200, 3, 60)) < 60


def test_the_running_line_follows_what_it_is_told_and_clears_itself() -> None:
    to_drawer, source = os.pipe(), os.pipe()
    os.write(source[1], b"docker\tInstall\nnomad\tRun it\n")
    os.close(source[1])
    draw(source[0], to_drawer[1])
    os.close(to_drawer[1])
    drawn = os.read(to_drawer[0], 65536).decode()
    assert "nomad" in drawn
    assert "Run it" in drawn
    assert drawn.endswith(CLEAR_LINE)
