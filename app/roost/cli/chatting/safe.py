"""Texts of models, tools and files on their way to a terminal: shown, never obeyed."""

from __future__ import annotations

from roost.cli.show import plain
from roost.ops.directions import DIRECTIONS


def safe(text: str) -> str:
    """Return a text in which nothing steers a terminal: controls and marks of direction are written out."""
    return plain(text).translate(DIRECTIONS)


def short(text: str, most: int) -> str:
    """Return a text as one line of at most `most` characters."""
    line = " ".join(safe(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
