"""The outline of a Markdown text: its headings, each with the lines of its section."""

from __future__ import annotations

import re

from roost.context.outline.lines import Entry

HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
UNDERLINE = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


def entries(text: str) -> list[Entry]:
    """Return the headings, in order; what stands in fenced code is none. CommonMark 0.31, sections 4.2, 4.3, 4.5."""
    found: list[tuple[int, str, int]] = []
    fence = ""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark.group(1).startswith(fence):
                fence = ""
            continue
        if mark:
            fence = mark.group(1)
            continue
        heading = HEADING.match(line)
        before = lines[number - 2].strip() if number > 1 else ""
        if heading:
            found.append((len(heading.group(1)), heading.group(2), number))
        elif UNDERLINE.match(line) and before and not HEADING.match(before) and not before.startswith(("-", "|", ">")):
            found.append((1 if "=" in line else 2, before, number - 1))
    top = min((level for level, _, _ in found), default=1)
    made = []
    for at, (level, title, first) in enumerate(found):
        later = (start for deeper, _, start in found[at + 1 :] if deeper <= level)
        made.append(Entry(level - top, title, first, next(later, len(lines) + 1) - 1))
    return made
