"""Texts of models, tools and files on their way to a terminal: shown, never obeyed."""

from __future__ import annotations

from roost.cli.show import plain

DIRECTIONS = {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Marks that turn the direction of writing: with them a line shows something else than it says
(https://www.unicode.org/reports/tr9/)."""


def safe(text: str) -> str:
    """Return a text in which nothing steers a terminal: controls and marks of direction are written out."""
    return plain(text).translate(DIRECTIONS)


def short(text: str, most: int) -> str:
    """Return a text as one line of at most `most` characters."""
    line = " ".join(safe(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
