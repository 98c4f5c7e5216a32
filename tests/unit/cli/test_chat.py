"""`roost chat`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from roost.cli.chat import MAX_TOKENS
from roost.cli.conversation import Conversation, Shelf
from roost.ops.errors import RoostError
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import KEY, MODEL, Installation

QUESTION = "What is the capital of France?"
ANSWER = "The capital is Paris."


def kept(site: Installation) -> list[Path]:
    return sorted((site.folder / "home" / "roost" / "chat").glob("*.json"))


def roles(chat: dict[str, list[dict[str, str]]]) -> list[str]:
    return [message["role"] for message in chat["messages"]]


def test_one_answer(site: Installation, roost: Run) -> None:
    done = roost("chat", QUESTION)
    assert (done.exit_code, done.stdout) == (0, f"{ANSWER}\n")
    (chat,) = site.api.chats
    assert chat["messages"] == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": QUESTION},
    ]
    assert (chat["model"], chat["stream"]) == ("auto", True)
    assert "temperature" not in chat
    assert chat["max_tokens"] == MAX_TOKENS


def test_options_reach_the_api(site: Installation, roost: Run) -> None:
    words = ["--model", "main", "--system", "Be brief.", "--max-tokens", "7", "--temperature", "0"]
    assert roost("chat", *words, QUESTION).exit_code == 0
    (chat,) = site.api.chats
    assert (chat["model"], chat["max_tokens"], chat["temperature"]) == ("main", 7, 0)
    assert chat["messages"][0]["content"] == "Be brief."


def test_json_and_stats(site: Installation, roost: Run) -> None:
    answer = json.loads(roost("chat", "--json", QUESTION).stdout)
    assert (answer["answer"], answer["model"], answer["tokens"], answer["prompt_tokens"]) == (ANSWER, MODEL, 5, 9)
    assert (answer["tokens_per_s"], answer["finish_reason"]) == (61.234, "stop")
    assert f"({MODEL}: 5 tokens, 61.2 tokens/s, " in roost("chat", "--stats", QUESTION).stderr
    site.api.mode = "length"
    assert "was cut at its longest allowed length" in roost("chat", QUESTION).stderr


def test_a_conversation_goes_on(site: Installation, roost: Run) -> None:
    roost("chat", "--system", "Be brief.", QUESTION)
    roost("chat", "--continue", "And of Spain?")
    assert roles(site.api.chats[1]) == ["system", "user", "assistant", "user"]
    assert site.api.chats[1]["messages"][0]["content"] == "Be brief."
    assert site.api.chats[1]["messages"][2]["content"] == ANSWER
    (file,) = kept(site)
    assert roles(json.loads(file.read_text())) == ["system", "user", "assistant", "user", "assistant"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    roost("chat", "A new one")
    assert len(kept(site)) == 2


def test_lines_from_a_pipe(site: Installation, roost: Run) -> None:
    done = roost("chat", stdin="One?\n\nTwo?\n/new\n/what\nThree?\n/quit\nFour?\n")
    assert (done.exit_code, done.stdout) == (0, f"{ANSWER}\n" * 3)
    assert [roles(chat) for chat in site.api.chats] == [
        ["system", "user"], ["system", "user", "assistant", "user"], ["system", "user"],
    ]  # fmt: skip
    assert "/what is not known" in done.stderr


def test_a_text_from_a_pipe(site: Installation, roost: Run) -> None:
    assert roost("chat", "-", stdin="Line one\nLine two\n").exit_code == 0
    assert site.api.chats[0]["messages"][1]["content"] == "Line one\nLine two\n"


def test_no_question(site: Installation, roost: Run) -> None:
    done = roost("chat", "-", stdin=" \n")
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == 2
    assert site.api.chats == []


@pytest.mark.parametrize(
    ("mode", "said"), [("break", "broke off before its end"), ("fail", "The answer broke off: out of memory")]
)
def test_half_an_answer_is_an_error_and_is_not_kept(site: Installation, roost: Run, mode: str, said: str) -> None:
    site.api.mode = mode
    done = roost("chat", QUESTION)
    assert done.stdout == f"{ANSWER}\n"
    assert isinstance(done.exception, RoostError)
    assert said in done.exception.message
    assert kept(site) == []


@pytest.mark.parametrize(("status", "fix"), [(400, ""), (404, "roost models"), (503, "roost doctor")])
def test_refusals(site: Installation, roost: Run, status: int, fix: str) -> None:
    site.api.refuse = (status, "no such thing")
    error = roost("chat", QUESTION).exception
    assert isinstance(error, RoostError)
    assert error.message == "The API refused: no such thing"
    assert fix in error.fix


def test_a_wrong_key(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_API_KEY", "other")
    error = roost("chat", QUESTION).exception
    assert isinstance(error, RoostError)
    assert "Incorrect API key" in error.message
    assert "ROOST_API_KEY" in error.fix
    assert site.api.chats == []


def test_another_address(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    address = json.loads(site.site_file.read_text())["api"]
    monkeypatch.setenv("ROOST_SITE", "/nowhere/site.json")
    error = roost("chat", QUESTION).exception
    assert isinstance(error, RoostError)
    assert error.exit_code == 3
    monkeypatch.setenv("ROOST_API", f"{address}/")
    monkeypatch.setenv("ROOST_API_KEY", KEY)
    assert roost("chat", QUESTION).stdout == f"{ANSWER}\n"


def test_nobody_answers(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_API", "http://127.0.0.1:9")
    error = roost("chat", QUESTION).exception
    assert isinstance(error, RoostError)
    assert "The API at http://127.0.0.1:9 does not answer" in error.message
    assert "roost status" in error.fix
    assert site.api.chats == []


def test_a_missing_key_file(site: Installation, roost: Run) -> None:
    (site.folder / "secrets" / "api-key").unlink()
    error = roost("chat", QUESTION).exception
    assert isinstance(error, RoostError)
    assert "cannot be read: No such file" in error.message


def test_the_shelf_passes_over_what_it_cannot_read(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "chat")
    assert shelf.last() is None
    talk = Conversation.begin("")
    assert talk.messages == []
    talk.messages.append({"role": "user", "content": "Grüße"})
    shelf.keep(talk)
    (shelf.folder / "broken.json").write_text("{")
    (shelf.folder / "other.json").write_text('{"id": 1}')
    found = shelf.last()
    assert found is not None
    assert found.messages == talk.messages


def test_a_conversation_that_cannot_be_kept_is_no_error(
    site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.folder / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(site.folder / "file"))
    done = roost("chat", QUESTION)
    assert (done.exit_code, done.stdout) == (0, f"{ANSWER}\n")
    assert "is not kept" in done.stderr
