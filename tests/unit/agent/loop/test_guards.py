"""What ends a model's circles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.agent.guards import (
    REPEATED_PIECES,
    Stop,
    Work,
    babbles,
    collapse_babble,
    fingerprint,
)
from roost.agent.thinking import Splitter
from roost.agent.tool import Outcome, Permission, ToolResult


def result(outcome: Outcome = Outcome.OK) -> ToolResult:
    return ToolResult(id="1", outcome=outcome, text="text")


def test_the_same_call_has_the_same_fingerprint() -> None:
    assert fingerprint("a", {"x": 1, "y": [2]}) == fingerprint("a", {"y": [2], "x": 1})
    assert (
        len({fingerprint("a", {}), fingerprint("b", {}), fingerprint("a", {"x": 1}), fingerprint("a", {"x": "1"})}) == 4
    )


def test_a_result_holds_until_something_is_changed() -> None:
    work = Work()
    work.ran("read", Permission.READ, result())
    assert work.known("read") == result()
    work.ran("write", Permission.WRITE, result(Outcome.REFUSED))
    assert work.known("read")
    work.ran("write", Permission.WRITE, result())
    assert work.known("read") is None
    work.ran("failed", Permission.READ, result(Outcome.FAILED))
    assert work.known("failed") is None


def test_two_rounds_of_blocked_calls_end_the_work() -> None:
    work = Work()
    assert work.round_over(2, 2) is None
    assert work.round_over(1, 0) is None
    assert work.round_over(1, 1) is None
    assert work.round_over(3, 3) == Stop.BLOCKED


def test_the_same_call_for_the_third_time_ends_the_work() -> None:
    work = Work()
    for _ in range(2):
        work.asked("same")
        assert work.round_over(1, 0) is None
    work.asked("same")
    assert work.round_over(1, 0) == Stop.STUCK


def test_work_that_mostly_fails_ends() -> None:
    work = Work()
    for number in range(4):
        work.asked(str(number))
        work.ran(str(number), Permission.READ, result(Outcome.FAILED))
        assert work.round_over(1, 0) is None
    work.asked("5")
    work.ran("5", Permission.READ, result())
    assert work.pollution == pytest.approx(0.8)
    assert work.round_over(1, 0) == Stop.POLLUTED


def test_babble_is_seen_and_collapsed() -> None:
    loop = "I think so. " * REPEATED_PIECES
    assert babbles("Well. " + loop)
    assert not babbles("Well. " + "I think so. " * (REPEATED_PIECES - 1))
    assert not babbles(" " * 5000)
    assert collapse_babble("yes\n" * 50).count("yes") == 3
    assert len(collapse_babble("Well. " + "I think so. " * 50)) < 60


@pytest.mark.parametrize(
    "text",
    ["", "one line", "1\n2\n3\n4", "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 3 |", "no no no no", "0, 0, 0, 0, 0"],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert collapse_babble(text) == text
    assert not babbles(text)


@settings(max_examples=200)
@given(before=st.text(max_size=40), thought=st.text(max_size=40), after=st.text(max_size=40), data=st.data())
def test_thoughts_are_split_off_wherever_the_stream_is_cut(
    before: str, thought: str, after: str, data: st.DataObject
) -> None:
    parts = [part.replace("<", "(") for part in (before, thought, after)]
    text = f"{parts[0]}<think>{parts[1]}</think>{parts[2]}"
    splitter, told = Splitter(), []
    while text:
        size = data.draw(st.integers(1, len(text)))
        told += splitter.feed(text[:size])
        text = text[size:]
    told += splitter.end()
    assert "".join(piece for piece, inside in told if not inside) == parts[0] + parts[2]
    assert "".join(piece for piece, inside in told if inside) == parts[1]
