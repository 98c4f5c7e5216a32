"""Thoughts apart from answers while they come: tags may be cut anywhere by the pieces of a stream."""

from __future__ import annotations

import re

OPEN = re.compile(r"<(think|thinking|thought|reasoning)>", re.IGNORECASE)
TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "</think>", "</thinking>", "</thought>", "</reasoning>")
CLOSE = re.compile(r"</(think|thinking|thought|reasoning)>", re.IGNORECASE)


class Splitter:
    """Takes pieces of a stream; gives back what is answer and what is thought, without the tags."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False

    def feed(self, piece: str) -> list[tuple[str, bool]]:
        """Return what can be told now, each part with whether it is a thought."""
        self._held += piece
        parts: list[tuple[str, bool]] = []
        while True:
            found = (CLOSE if self._inside else OPEN).search(self._held)
            if not found:
                break
            parts.append((self._held[: found.start()], self._inside))
            self._held = self._held[found.end() :]
            self._inside = not self._inside
        keep = _beginning_of_tag(self._held)
        parts.append((self._held[: len(self._held) - keep], self._inside))
        self._held = self._held[len(self._held) - keep :]
        return [part for part in parts if part[0]]

    def end(self) -> list[tuple[str, bool]]:
        """Return what was held back."""
        rest, self._held = self._held, ""
        return [(rest, self._inside)] if rest else []


def _beginning_of_tag(text: str) -> int:
    """Return how many characters at the end may be the beginning of a tag."""
    lowered = text.lower()
    for size in range(min(len(text), max(map(len, TAGS)) - 1), 0, -1):
        if any(tag.startswith(lowered[-size:]) for tag in TAGS):
            return size
    return 0
