"""The shape of a log: how long, from when to when, how grave, and which lines come again and again."""

from __future__ import annotations

import re
from collections import Counter

from roost.context.outline.lines import Entry

TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}|[A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2}|\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}"
    r"|^\[?\s*\d+\.\d{3,6}\]?"
)
LEVEL = re.compile(r"\b(FATAL|CRITICAL|ERROR|WARN(?:ING)?|INFO|DEBUG|TRACE)\b|level=(\w+)", re.IGNORECASE)
GRAVE = ("FATAL", "CRITICAL", "ERROR")
VARIABLE = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", re.IGNORECASE)
SHARE = 0.5
LEAST_LINES = 8
SHAPES = 12
GRAVE_LINES = 10


def entries(text: str) -> list[Entry]:
    """Return the shape of a log; none if fewer than half of its lines have a time."""
    lines = [line for line in text.splitlines() if line.strip()]
    times = [match.group() for line in lines if (match := TIME.search(line[:64]))]
    if len(lines) < LEAST_LINES or len(times) < SHARE * len(lines):
        return []
    levels: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    first: dict[str, int] = {}
    grave: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = LEVEL.search(line)
        level = (match.group(1) or match.group(2)).upper() if match else ""
        if level:
            levels[level] += 1
        if level in GRAVE:
            grave.append((number, line))
        shape = VARIABLE.sub("#", TIME.sub("", line, count=1)).strip()
        shapes[shape] += 1
        first.setdefault(shape, number)
    made = [Entry(0, f"log of {len(lines)} lines from {times[0]} to {times[-1]}")]
    if levels:
        made.append(Entry(0, "levels: " + ", ".join(f"{name} {count}" for name, count in levels.most_common())))
    shown = grave if len(grave) <= GRAVE_LINES else [*grave[: GRAVE_LINES // 2], *grave[-GRAVE_LINES // 2 :]]
    if shown:
        made.append(Entry(0, f"grave lines, {len(shown)} of {len(grave)}"))
        made += [Entry(1, f"{number}: {line}") for number, line in shown]
    made.append(Entry(0, "lines that come again (# for what differs)"))
    made += [
        Entry(1, f"{count} times {shape} (first: line {first[shape]})") for shape, count in shapes.most_common(SHAPES)
    ]
    return made
