"""`roost verify`."""

from __future__ import annotations

import json

import pytest

from roost.cli.access import Access
from roost.cli.api import Api
from roost.cli.verify import wait_until_ready
from roost.ops.errors import RoostError
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import MODEL, Installation


def test_a_good_answer(site: Installation, roost: Run) -> None:
    report = site.folder / "last-verify.json"
    done = roost("verify", "--json", "--expect", "PARIS", "--report", str(report))
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert json.loads(report.read_text()) == answer
    assert answer.pop("seconds") < 60
    assert answer == {
        "question": "What is the capital of France?", "answer": "The capital is Paris.", "model": MODEL, "tokens": 5,
        "tokens_per_s": 61.23, "ok": True,
    }  # fmt: skip
    (chat,) = site.api.chats
    assert (chat["messages"][0]["content"], chat["temperature"]) == ("You are a helpful assistant.", 0)


def test_a_wrong_answer(site: Installation, roost: Run) -> None:
    report = site.folder / "last-verify.json"
    done = roost("verify", "--json", "--question", "Italy?", "--expect", "Rome", "--report", str(report))
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == 1
    assert "does not hold 'Rome': 'The capital is Paris.'" in done.exception.message
    assert json.loads(done.stdout)["ok"] is False
    assert json.loads(report.read_text())["ok"] is False


def test_it_waits_for_the_model(site: Installation, roost: Run) -> None:
    site.api.not_ready = 2
    assert roost("verify").exit_code == 0
    assert site.api.probes == 3


def test_a_model_that_never_gets_ready(site: Installation, roost: Run) -> None:
    site.api.not_ready = 1000
    error = roost("verify", "--timeout", "1").exception
    assert isinstance(error, RoostError)
    assert error.message == "The model server is not ready: main: loading the model."
    assert "roost logs main" in error.fix
    assert site.api.chats == []


def test_nobody_answers(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_API", "http://127.0.0.1:9")
    error = roost("verify", "--timeout", "1").exception
    assert isinstance(error, RoostError)
    assert error.message.startswith("The agent does not answer: the API does not answer at http://127.0.0.1:9")
    assert "roost logs agent" in error.fix
    assert site.api.probes == 0


def test_it_asks_less_and_less_often(site: Installation) -> None:
    site.api.not_ready = 1000
    now = 0.0
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    address = json.loads(site.site_file.read_text())["api"]
    with Api(Access(address)) as api, pytest.raises(RoostError):
        wait_until_ready(api, 10.0, clock=lambda: now, pause=pause)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 0.9])
    assert site.api.probes == len(pauses) + 1


def test_an_answer_that_takes_too_long(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10_000, 40))
    monkeypatch.setattr("roost.cli.verify.time.monotonic", lambda: float(next(ticks)))
    error = roost("verify", "--timeout", "100").exception
    assert isinstance(error, RoostError)
    assert "took too long" in error.message
    assert site.api.chats
