"""`roost chat` at a real terminal, asked before a tool runs: what is seen, answered, mistyped, stopped."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from roost.agent.permission.policy import Answer
from roost.cli.agent import Talk
from roost.cli.chatting.chat import Chat
from roost.cli.chatting.screen import Screen
from tests.support.terminal import PROMPT, Terminal
from tests.unit.cli.fakes import Handler, running
from tests.unit.cli.test_chat_terminal import PATIENCE_S, SESSIONS, at_terminal

ASKED: list[dict[str, Any]] = [
    {"type": "turn", "turn": "t"},
    {"type": "tool_call", "id": "c1", "tool": "mcp__ex__send", "arguments": {"text": "hi"}},
    {
        "type": "question", "id": "q1", "call": "c1", "tool": "mcp__ex__send", "arguments": {"text": "hi"},
        "why": "w", "text": "May mcp__ex__send be called with \x1b[2J?", "until_s": 300,
    },
]  # fmt: skip


@dataclass
class Asking:
    """The API: each message is asked about, and answered once the question is, or it is cancelled."""

    said: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    cancels: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def serve(self, request: Handler) -> None:
        body = json.loads(request.rfile.read(int(request.headers.get("Content-Length") or 0)) or b"{}")
        path = request.path.removeprefix(SESSIONS).partition("?")[0]
        if path == "":
            request.answer_json(201, {"id": "s1"})
        elif path.endswith("/messages"):
            self.said.append(body)
            self._turn(request)
        elif path.endswith("/cancel"):
            self.cancels += 1
            request.answer_json(200, {"cancelled": True})
            self.over.set()
        else:
            self.answers.append((path, body["answer"]))
            request.answer_json(200, {"answer": body["answer"]})
            self.over.set()

    def _turn(self, request: Handler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        for event in ASKED:
            request.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        request.wfile.flush()
        assert self.over.wait(PATIENCE_S)
        self.over.clear()
        said = "stopped" if self.cancels else self.answers[-1][1]
        late: list[dict[str, Any]] = [
            {"type": "question.answered", "id": "q1", "answer": said},
            {"type": "text", "text": "All is said."},
            {"type": "cancelled"} if self.cancels else {"type": "end"},
        ]
        for event in late:
            request.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        request.close_connection = True


@pytest.fixture
def agent() -> Asking:
    return Asking()


@pytest.fixture
def terminal(agent: Asking, tmp_path: Path) -> Iterator[Callable[[], Terminal]]:
    made: list[Terminal] = []
    with running(agent.serve) as port:

        def opened() -> Terminal:
            made.append(at_terminal(port, tmp_path, "chat"))
            return made[-1]

        yield opened
        for one in made:
            one.leave()


@pytest.mark.parametrize(
    ("typed", "said", "shown"),
    [
        ("y\r", "yes", "· allowed"), ("c\r", "conversation", "allowed in this conversation"),
        ("always\r", "always", "allowed from now on"), ("n\r", "no", "not allowed"),
    ],
)  # fmt: skip
def test_a_question_is_seen_and_answered(
    terminal: Callable[[], Terminal], agent: Asking, typed: str, said: str, shown: str
) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("send it\r")
    seen = here.take("then Enter")
    assert "\\x1b[2J" in seen
    assert "y (this once)" in seen
    here.type(typed)
    here.take(shown)
    here.take("All is said.")
    assert agent.answers == [("/s1/questions/q1", said)]
    assert agent.said[0]["answers"] is True
    assert "allow" not in agent.said[0]  # nothing is allowed beforehand
    here.take(PROMPT)
    here.type("/quit\r")
    assert here.end() == 0


def test_what_was_typed_before_is_no_answer_and_what_is_none_is_asked_again(
    terminal: Callable[[], Terminal], agent: Asking
) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("send it\r")
    here.take("then Enter")
    here.type("maybe\r")
    here.take("maybe is no answer")
    assert agent.answers == []
    here.type("N\r")
    here.take("All is said.")
    assert agent.answers == [("/s1/questions/q1", "no")]
    here.take(PROMPT)
    here.type("more\r")  # no letter of the answers was left over
    here.take("then Enter")
    assert agent.said[1]["text"] == "more"
    here.type("\x1b")
    here.take("not answered: stopped")
    assert (agent.cancels, len(agent.answers)) == (1, 1)


class Noted(Talk):
    """Notes what is answered."""

    def __init__(self) -> None:
        self.answered: list[tuple[str, str]] = []

    def answer(self, question: str, answer: Answer) -> None:
        self.answered.append((question, answer.value))


def test_of_two_questions_the_one_that_is_shown_last_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Noted()
    chat = Chat(talk, Screen(rich=False), lambda ahead: ahead)
    for name, what in (("q1", "send"), ("q2", "list"), ("q3", "look")):
        chat._heard({"type": "question", "id": name, "text": f"May {what} be called?"}, quiet=False)
    seen = capsys.readouterr().out
    assert "May send" in seen
    assert "May list" not in seen
    chat._answer("n")
    chat._heard({"type": "question.answered", "id": "q3", "answer": "stopped"}, quiet=False)  # not seen by anybody
    assert capsys.readouterr().out == ""
    chat._heard({"type": "question.answered", "id": "q1", "answer": "no"}, quiet=False)
    seen = capsys.readouterr().out
    assert seen.index("not allowed") < seen.index("May list")
    chat._answer("y")
    assert talk.answered == [("q1", "no"), ("q2", "yes")]
    chat._heard({"type": "question.answered", "id": "q2", "answer": "yes"}, quiet=False)
    assert "May" not in capsys.readouterr().out
