"""What other people wrote, at the user's terminal."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.channel.wire import Announced
from roost.agent.tool import Outcome, ToolCall, ToolResult
from roost.cli.agent import Talk, described
from roost.cli.api import Api
from roost.cli.show import json_line, local_time, plain, print_table
from roost.cli.worker import Shown

NASTY = "a\x1b]0;title\x07b\x9b2Jc\rd\x7f\udce9"


@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left_and_lines_stay(text: str) -> None:
    shown = plain(text)
    assert all(letter in "\n\t" or letter.isprintable() or ord(letter) >= 0xA0 for letter in shown)
    assert shown.count("\n") == text.count("\n")
    shown.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_line_of_json_is_what_it_was_and_holds_no_control_character(text: str) -> None:
    line = json_line({"text": text})
    assert json.loads(line) == {"text": text}
    assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in line)


def test_events_of_the_agent_and_calls_of_the_worker_are_shown_plain(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[dict[str, Any]] = [
        {"type": "tool_call", "tool": NASTY, "arguments": {"path": NASTY}},
        {"type": "tool_result", "outcome": "ok", "text": NASTY},
        {"type": "notice", "text": NASTY},
        {"type": "thought", "text": NASTY},
    ]
    said = [described(event) for event in events]
    for as_json in (False, True):
        shown = Shown(lambda: Announced(id="a", host="h", version="1", workspaces=(), tools=()), as_json=as_json)
        call = ToolCall(id="c", name="read", arguments={"path": NASTY}, session="s")
        shown.begins(call)
        shown.ended(call, ToolResult(id="c", outcome=Outcome.OK, text=NASTY, changed=(NASTY,)))
        shown.lost(NASTY)
    print_table(["folder"], [(NASTY,)])
    for text in [*said, capsys.readouterr().out]:
        assert text
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\r", "\x7f", "\udce9"}


def test_a_notice_in_the_middle_of_an_answer_has_a_line_of_its_own_and_a_refusal_is_said_whole() -> None:
    refusal = "shell was not called: " + "what to do then, " * 30
    events: list[dict[str, Any]] = [
        {"type": "tool_result", "outcome": "refused", "text": refusal},
        {"type": "text", "text": "An answer"},
        {"type": "notice", "text": "A notice."},
        {"type": "end"},
    ]

    class Scripted:
        def events(self, _path: str, _body: object) -> Iterator[dict[str, Any]]:
            yield from events

    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        Talk(cast("Api", Scripted()), "s", as_json=False).say("Hello")
    assert said.getvalue().splitlines() == [f"← refused {refusal.strip()}", "An answer", "· A notice.", ""]


def test_times_are_those_of_the_clock_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    try:
        shown = [
            local_time(text) for text in ("2026-01-02T23:30:05.123Z", "2026-07-01T10:00:00+00:00", "", None, "never")
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert shown == ["2026-01-03 00:30", "2026-07-01 12:00", "", "", "never"]
