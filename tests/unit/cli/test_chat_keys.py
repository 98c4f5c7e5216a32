"""What is typed while an answer is written, and cannot be seen: lines, and what is left after the last one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.cli.chatting.keys import Ahead


@pytest.mark.parametrize(
    ("typed", "lines", "rest"),
    [
        (b"/cost\rtext\r", ["/cost", "text"], ""), (b"/cost\ntext", ["/cost"], "text"),
        (b"a\r\n\r  \rb\r", ["a", "b"], ""),
        (b"tezt\x7f\x7fxt\r", ["text"], ""), (b"\x7f\x08a", [], "a"), (b"no\x15yes\r", ["yes"], ""),
        (b"one\x1b\rtwo\r", ["one\ntwo"], ""), (b"a\x1b[A\x1bOPb\x1b", [], "ab"),
        ("gr\u00fcn\r".encode(), ["gr\u00fcn"], ""),
    ],
)  # fmt: skip
def test_enter_ends_a_line_and_the_keys_that_correct_one_do(typed: bytes, lines: list[str], rest: str) -> None:
    ahead = Ahead()
    ahead.take(typed)
    assert (ahead.lines, ahead.rest) == (lines, rest)


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1)), st.integers(min_value=1, max_value=7))
def test_lines_are_the_same_however_they_come(lines: list[str], at_once: int) -> None:
    ahead = Ahead()
    text = "".join(f"{line}\r" for line in lines)
    for start in range(0, len(text), at_once):
        ahead.take(text[start : start + at_once].encode())
    assert (ahead.lines, ahead.rest) == (lines, "")
