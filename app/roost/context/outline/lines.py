"""Lines of an outline: where they point to, and how many of them have room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_CHARACTERS = 160
MORE = "… and {} more"


@dataclass(frozen=True)
class Entry:
    """One line: how deep it lies, what it says, and which lines of the text it stands for, from 1."""

    depth: int
    text: str
    first: int = 0
    last: int = 0

    def shown(self) -> str:
        """Return the line as it is shown."""
        where = "" if not self.first else f"  [lines {self.first}-{self.last}]"
        return f"{'  ' * self.depth}{one_line(self.text)}{where}"


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text in one line of at most so many characters; an ellipsis says that there was more."""
    joined = " ".join(text.split())
    return joined if len(joined) <= most else joined[: most - 1] + "…"


def fitted(entries: Sequence[Entry], room: int) -> str:
    """Return entries in at most `room` bytes: the deepest go first, then the last; how many is said."""
    depth = max((entry.depth for entry in entries), default=0)
    kept = list(entries)
    while depth > 0 and _size(kept) > room:
        kept = [entry for entry in entries if entry.depth < depth]
        depth -= 1
    lines = [entry.shown() for entry in kept]
    used = 0
    shown: list[str] = []
    for line in lines:
        used += len(line.encode("utf-8", "replace")) + 1
        if used + len(MORE) + 8 > room:
            break
        shown.append(line)
    left = len(entries) - len(shown)
    return "\n".join([*shown, *([MORE.format(left)] if left else [])])


def _size(entries: Sequence[Entry]) -> int:
    return sum(len(entry.shown().encode("utf-8", "replace")) + 1 for entry in entries)
