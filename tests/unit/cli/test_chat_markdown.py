"""Markdown as it comes: the same however it is cut, nothing printed twice, nothing of a model's steers the terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.cli.chatting.markdown import BOLD, CODE, DIM, ITALIC, RESET, UNDERLINE, Markdown, columns
from roost.cli.chatting.safe import safe, short

STYLE = re.compile(r"\x1b\[\d+m")
PIECES = st.lists(
    st.sampled_from([
        "word", " ", "\n", "\n\n", "**", "*", "_", "__", "`", "```", "```py\n", "# ", "- ", "1. ", "> ", "|",
        "|--|--|\n", "[a](http://x)", "[", "](", ")", "~~", "\t", "é", "漢字", "\x1b[2J", "\x1b]0;x\x07", "\u202e",
        "\r", "---\n", "a" * 60,
    ]),
    max_size=40,
)  # fmt: skip
TEXT = """# Title **x**

Some **bold words here**, *slanted*, `code *x*`, ~~gone~~ and a [link](https://example.org) that goes on and on until it
must be broken. 2 * 3 * 4 and snake_case_name.

1. one
2. two that is rather long and needs to be broken over several lines since it is long
   - inner item

| name | size |
|:-----|-----:|
| hen **b** | 3 |
| x | 1000 |

> quoted words

```python
def f(x):
    return "**no**"
```
end"""


def shown(*pieces: str, width: int = 50) -> str:
    """Return what a terminal gets."""
    got: list[str] = []
    markdown = Markdown(got.append, lambda: width)
    for piece in pieces:
        markdown.feed(piece)
    markdown.end()
    return "".join(got)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 23, 50])
def test_it_is_the_same_however_it_is_cut(step: int) -> None:
    whole = shown(TEXT)
    assert shown(*(TEXT[at : at + step] for at in range(0, len(TEXT), step))) == whole
    plain = STYLE.sub("", whole)
    for line in ("name   size", "hen b     3", "x      1000", "• inner item", "│ quoted words", "╭─ python"):
        assert line in plain
    assert f"{BOLD}words{RESET}" in whole
    assert f"{ITALIC}slanted{RESET}" in whole
    assert f"{CODE}*x*{RESET}" in whole
    assert f"{UNDERLINE}link{RESET} {DIM}(https://example.org){RESET}" in whole
    assert f'{CODE}    return "**no**"{RESET}' in whole
    assert "2 * 3 * 4 and" in plain
    assert "snake_case_name" in plain
    assert max(columns(line) for line in plain.splitlines()) <= 50
    assert "   over several lines" in plain  # under the item that it belongs to


@given(pieces=PIECES, width=st.integers(10, 80))
def test_nothing_steers_the_terminal_and_no_word_is_lost_or_said_twice(pieces: list[str], width: int) -> None:
    text = safe("".join(pieces))
    out = shown(text, width=width)
    bare = STYLE.sub("", out)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", bare)
    assert bare.count("word") == text.count("word")
    assert bare.count("漢字") == text.count("漢字")
    assert out.count("\x1b") == len(STYLE.findall(out))
    assert not out or out.endswith("\n")


def test_words_are_shown_before_their_line_ends() -> None:
    got: list[str] = []
    markdown = Markdown(got.append, lambda: 80)
    markdown.feed("The capital of France, which you asked about, is **Par")
    assert "".join(got) == "The capital of France, which you asked about, is"
    markdown.feed("is** and ")
    assert "".join(got).endswith(f"is {BOLD}Paris{RESET} and")


def test_short_is_one_harmless_line() -> None:
    assert short("a\n\x1b[31mb " + "x" * 50, 12) == "a \\x1b[31mb…"
