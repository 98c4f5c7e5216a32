"""What a long text is in short: its outline where it has one, else its beginning and its end."""

from __future__ import annotations

from dataclasses import dataclass

LEFT_OUT = "\n[… {} bytes left out here …]\n"


@dataclass(frozen=True)
class Briefing:
    """A text in short; `what` says what was made of it."""

    text: str
    what: str


def brief(text: str, name: str, room: int) -> Briefing:
    """Return a text in at most about `room` bytes; `name` is a file name or address and may be empty."""
    del name
    return Briefing(ends(text, room), "beginning and end")


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
