"""`roost chat` at a real terminal (a pty), before a scripted agent: what is seen, stopped, gone on with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import PROMPT, Terminal, roost_at_terminal
from tests.unit.cli.fakes import Handler, running

PATIENCE_S = 60.0
SESSIONS = "/roost/v1/sessions"
METRICS: dict[str, Any] = {
    "type": "metrics", "seconds": 1.5, "tools_run": 1, "tools_blocked": 0,
    "roles": {"main": {"model": "m", "prompt_tokens": 90, "cached_tokens": 30, "completion_tokens": 7, "seconds": 1}},
}  # fmt: skip
WAITING: list[dict[str, Any]] = [{"type": "turn"}, {"type": "text", "text": "Working on it, this takes a while "}]
TALK: list[dict[str, Any]] = [
    {"type": "turn", "turn": "t"},
    {"type": "thought", "text": "hm \x1b[2J"},
    {"type": "tool_call", "id": "c1", "tool": "read", "arguments": {"path": "a\x1b]0;pwned\x07.txt"}},
    {"type": "tool_result", "id": "c1", "outcome": "ok", "text": "x", "bytes": 5000, "seconds": 0.34, "changed": []},
    {"type": "tool_call", "id": "c2", "tool": "shell", "arguments": {"command": "rm -rf /"}},
    {"type": "tool_result", "id": "c2", "outcome": "refused", "text": "destructive", "seconds": 0.0, "changed": []},
    {"type": "text", "text": "It is **Par"},
    {"type": "text", "text": "is** \x1b[31mnot red.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\nls\n```\n"},
    METRICS,
    {"type": "end", "turn": "t"},
]


@dataclass
class Agent:
    """The API. A message `wait` is answered only when it is cancelled."""

    said: list[str] = field(default_factory=list)
    chosen: list[dict[str, Any]] = field(default_factory=list)
    cancels: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    begun: int = 0

    def serve(self, request: Handler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length) or b"{}")
        path = request.path.removeprefix(SESSIONS).partition("?")[0]
        if request.command == "POST" and path == "":
            self.begun += 1
            request.answer_json(201, {"id": f"s{self.begun}"})
        elif path == "":
            rows = [
                {"id": f"old{n}", "updated": "2026-01-02T03:04:05", "messages": 2, "title": f"Talk {n}"} for n in (1, 2)
            ]
            request.answer_json(200, {"data": rows})
        elif path.endswith("/messages"):
            self.said.append(body["text"])
            self._answer(request, body["text"])
        elif path.endswith("/cancel"):
            self.cancels += 1
            self.cancelled.set()
            request.answer_json(200, {"cancelled": True})
        elif path.endswith("/choices"):
            self.chosen.append(body)
            request.answer_json(
                200,
                {"think": True, "cost_mode": body.get("cost_mode", "smart"), "cost_mode_from": "x", "workspace": None},
            )
        elif path.endswith("/undo"):
            request.answer_json(200, {"outcome": "ok", "text": "Put back: a.txt", "changed": ["a.txt"]})
        elif path == "/old2":
            bodies = [
                {"kind": "message", "role": "user", "text": "earlier question"},
                {"kind": "message", "role": "assistant", "text": "earlier **answer**"},
                {"kind": "metrics", "values": METRICS},
            ]
            records = [{"seq": n, "body": one} for n, one in enumerate(bodies, start=1)]
            request.answer_json(200, {"id": "old2", "damaged": 0, "more": False, "records": records})
        else:
            request.answer_json(404, {"error": {"message": "no such conversation"}})

    def _answer(self, request: Handler, text: str) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        events: list[dict[str, Any]] = TALK
        if text == "wait":
            events = WAITING
        for event in events:
            request.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        request.wfile.flush()
        if text == "wait":
            assert self.cancelled.wait(PATIENCE_S)
            late: list[dict[str, Any]] = [{"type": "text", "text": "LATE"}, {"type": "cancelled"}, {"type": "end"}]
            for event in late:
                request.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        request.close_connection = True


def at_terminal(port: int, folder: Path, *words: str, **more: str) -> Terminal:
    """Run `roost` at a pty of its own."""
    return roost_at_terminal(f"http://127.0.0.1:{port}", "key", folder, words, more, PATIENCE_S)


Open = Callable[..., Terminal]


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def terminal(agent: Agent, tmp_path: Path) -> Iterator[Open]:
    made: list[Terminal] = []
    with running(agent.serve) as port:

        def opened(*words: str, **more: str) -> Terminal:
            made.append(at_terminal(port, tmp_path, *(words or ("chat",)), **more))
            return made[-1]

        yield opened
        for one in made:
            one.leave()


def test_what_the_agent_does_is_seen_and_nothing_of_it_steers_the_terminal(terminal: Open, agent: Agent) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("What is it?\r")
    seen = here.take("╰─")
    assert agent.said == ["What is it?"]
    for words in (
        "→ read path=a\\x1b]0;pwned\\x07.txt", "← read ok · 4.9 KiB · 0.3 s", "→ shell command=rm -rf /",
        "← shell refused · destructive", "\x1b[1mParis\x1b[0m", "\\x1b[31mnot", "(thinking)", "\\x1b[2J",
        "\x1b[1ma  b\x1b[0m", "╭─ sh",
    ):  # fmt: skip
        assert words in seen
    assert "\x1b]0;pwned" not in seen
    assert "\x1b[31mnot" not in seen
    here.take(PROMPT)
    here.type("/cost\r")
    assert "main" in here.take("1 turns, 1 calls, 1.5 s")
    here.type("/quit\r")
    assert here.end() == 0


@pytest.mark.parametrize("key", ["\x1b", "\x03"])
def test_esc_and_one_ctrl_c_stop_the_turn_at_once_and_the_chat_goes_on(terminal: Open, agent: Agent, key: str) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("wait\r")
    here.take("this takes a")
    here.type("\x1b[A")  # an arrow is no Esc
    ahead = "typed ahead" if key == "\x1b" else ""  # with Ctrl-C the kernel forgets what was typed
    here.type(ahead + key)
    seen = here.take("stopped")
    assert "LATE" not in seen
    assert agent.cancels == 1
    here.take(ahead or PROMPT)
    here.type("!\r")
    here.take("╰─")
    assert agent.said == ["wait", f"{ahead}!"]
    here.take(PROMPT)  # Ctrl-D leaves at the prompt only
    here.type("\x04")
    assert here.end() == 0


def test_lines_sent_while_an_answer_is_written_are_run_after_it_in_order(terminal: Open, agent: Agent) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("wait\r")
    here.take("this takes a")
    here.type("/cost\rfirst\rsecond\rlast\x1b")
    here.take("> /cost")
    here.take("nothing yet")
    here.take("> first")
    here.take("> second")
    here.take(PROMPT)
    here.take("last")
    here.type("!\r")
    here.take("╰─")
    assert agent.said == ["wait", "first", "second", "last!"]


def test_ctrl_c_twice_leaves(terminal: Open) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("\x03")
    here.take("again leaves")
    here.take(PROMPT)
    here.type("\x03")
    assert here.end() == 0


def test_lines_pasted_and_made_are_one_message_and_are_remembered(terminal: Open, agent: Agent, tmp_path: Path) -> None:
    here = terminal()
    here.take(PROMPT)
    here.type("\x1b[200~one\r\ntwo\x1b[201~")
    here.type("\x1b\rthree\r")
    here.take("╰─")
    assert agent.said == ["one\ntwo\nthree"]
    here.take(PROMPT)
    here.type("fout\x7f\x7f\x7four\r")
    here.take("╰─")
    assert agent.said[1] == "four"
    here.take(PROMPT)
    here.type("\x04")
    assert here.end() == 0
    file = tmp_path / "roost" / "chat" / "history"
    assert file.stat().st_mode & 0o777 == 0o600
    again = terminal()
    again.take(PROMPT)
    again.type("\x1b[A\r")
    again.take("╰─")
    assert agent.said[2] == "four"


def test_commands(terminal: Open, agent: Agent) -> None:
    here = terminal()
    for line, said in (
        ("/help", "/undo"), ("/mode fast", "cost mode fast"), ("/think", "thoughts are shown"),
        ("/undo", "Put back: a.txt"), ("/resume 2", "choose one of these: /resume NUMBER"),
        ("/sessions", "Talk 2"), ("/resume 3", "choose one of these"), ("/nonsense", "is not known"),
        ("/resume nowhere", "error: The API refused"),
        ("/new", "a new conversation"),
    ):  # fmt: skip
        here.take(PROMPT)
        here.type(f"{line}\r")
        here.take(said)
    here.take(PROMPT)
    here.type("/resume 2\r")
    assert "earlier question" in here.take("\x1b[1manswer\x1b[0m")
    here.take(PROMPT)
    here.type("/cost\r")
    here.take("1 turns")
    assert agent.chosen[0] == {"cost_mode": "fast"}
    assert {"think": True} in agent.chosen


@pytest.mark.parametrize(("words", "more"), [(("chat", "--plain"), {}), (("agent",), {"NO_COLOR": "1"})])
def test_plain_is_as_it_was_written(terminal: Open, words: tuple[str, ...], more: dict[str, str]) -> None:
    here = terminal(*words, **more)
    here.take("> " if "--plain" in words else PROMPT)
    here.type("hi\r")
    seen = here.take("```sh\r\nls\r\n```")
    assert "It is **Paris** \\x1b[31mnot red." in seen
    assert "\x1b[1m" not in seen


def test_continue_goes_on_with_the_last_one(terminal: Open, agent: Agent) -> None:
    here = terminal("chat", "--continue")
    here.take(PROMPT)
    assert agent.begun == 0
