"""What a long text is in short: its outline where it has one, else its beginning and its end."""

from __future__ import annotations

from dataclasses import dataclass

from roost.context.outline import log, markdown, source, table
from roost.context.outline.lines import Entry, fitted

LEFT_OUT = "\n[… {} bytes left out here …]\n"
WORTH_ENTRIES = 2
ROOM_FOR_ENDS = 400
"""If so many bytes are left beside an outline, they show how the text begins and ends."""
MOST_OUTLINED = 20_000_000
"""A longer text is not taken apart, its beginning and end are shown."""


@dataclass(frozen=True)
class Briefing:
    """A text in short; `what` says what was made of it."""

    text: str
    what: str


def brief(text: str, name: str, room: int) -> Briefing:
    """Return a text in at most about `room` bytes; `name` is a file name or address and may be empty."""
    what, entries = outline(text, name) if len(text) <= MOST_OUTLINED else ("", [])
    if len(entries) < WORTH_ENTRIES:
        return Briefing(ends(text, room), "beginning and end")
    shown = fitted(entries, room)
    left = room - len(shown.encode("utf-8", "replace")) - 2
    if left >= ROOM_FOR_ENDS:
        shown += "\n\n" + ends(text, left)
    return Briefing(shown, what)


def outline(text: str, name: str) -> tuple[str, list[Entry]]:
    """Return what kind of outline a text has, and its entries; nothing and none if it has none."""
    lower = name.lower().partition("?")[0]
    language = source.language_of(lower)
    if language:
        return "declarations", source.entries(text, language)
    if lower.endswith((".md", ".markdown")):
        return "headings", markdown.entries(text)
    start = text.lstrip()[:1]
    if start in {"{", "["}:
        for what, made in (("shape", table.json_lines), ("shape", table.document)):
            if found := made(text):
                return what, found
    if found := log.entries(text):
        return "shape", found
    if found := table.delimited(text, lower):
        return "shape", found
    if len(found := markdown.entries(text)) > WORTH_ENTRIES:
        return "headings", found
    return "", []


def ends(text: str, room: int) -> str:
    """Return the beginning and the end of a text, cut between lines where that is near, in at most `room` bytes."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= room:
        return text
    keep = max(room - len(LEFT_OUT) - 12, 2)
    head = _whole(data[: keep * 2 // 3])
    tail = _whole(data[len(data) - keep // 3 :])
    line = head.rfind("\n")
    if line > len(head) * 2 // 3:
        head = head[:line]
    line = tail.find("\n")
    if 0 <= line < len(tail) // 3:
        tail = tail[line + 1 :]
    out = len(data) - len(head.encode("utf-8", "replace")) - len(tail.encode("utf-8", "replace"))
    return head + LEFT_OUT.format(out) + tail


def _whole(data: bytes) -> str:
    return data.decode("utf-8", "ignore")
