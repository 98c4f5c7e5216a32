"""The system prompt of a role: its own text, and parts that may take so many percent of the model's real context each.

It is made once a session and stays as it is: a head that changes has the server read everything again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from roost.context.budget import LITE_SHARES, Bounds
from roost.context.events import ContextEvent, Kind
from roost.context.gate import Form, Gate
from roost.context.pack import Head
from roost.ops.errors import RoostError

TITLES: Mapping[str, str] = {
    "bootstrap": "How to begin",
    "memory": "What you remember",
    "skills": "Skills",
    "profiles": "Who you work for",
}


Part = str | Sequence[str]
"""A text, or lines of which as many as fit are taken, from the first on."""
LINES_TITLE = "{} of {} lines; the others are found by a search"
MOST_LINE_BYTES = 16
"""Bytes for each token that lines may take, above which they are not even counted."""


async def lite_head(
    system: str, parts: Mapping[str, Part], tools: Sequence[JsonValue], bounds: Bounds, gate: Gate
) -> tuple[Head, tuple[ContextEvent, ...]]:
    """Return a head of a system text, the parts that there are (names of `LITE_SHARES`) and tool schemas.

    A part that is too long is shortened with a marker, and an event says so.

    Raises:
        RoostError: all of it takes more than the head may, or there is no part of that name.
    """
    unknown = sorted(set(parts) - set(LITE_SHARES))
    if unknown:
        raise RoostError(f"A head has no part {unknown[0]!r}.", fix=f"Use one of {', '.join(LITE_SHARES)}.")
    texts = [system.strip()]
    events = []
    for name in LITE_SHARES:
        part = parts.get(name, "")
        title = f"## {TITLES[name]}\n"
        most = bounds.lite_tokens(name) - await gate.counter.text(title)
        text = part.strip() if isinstance(part, str) else await _lines(part, most, gate)
        if not isinstance(part, str) and (taken := len(text.splitlines())) < len(part):
            said = f"The {name} part of the head has {LINES_TITLE.format(taken, len(part))}."
            lines: dict[str, JsonValue] = {"part": name, "tokens": most, "lines": taken, "of": len(part)}
            events.append(ContextEvent(kind=Kind.GATED, message=said, detail=lines))
        if not text:
            continue
        admitted = await gate.admit(text, most)
        if admitted.form is not Form.RAW:
            said = f"The {name} part of the head was shortened: {admitted.size} bytes have no room in {most} tokens."
            detail: dict[str, JsonValue] = {"part": name, "tokens": most, "reference": admitted.reference}
            events.append(ContextEvent(kind=Kind.GATED, message=said, detail=detail))
        if admitted.tokens <= most:  # not even a reference has room in the smallest of contexts
            texts.append(title + admitted.text)
    head = Head("\n\n".join(text for text in texts if text), tuple(tools))
    schemas = json.dumps(list(tools), ensure_ascii=False) if tools else ""
    size = await gate.counter.text(head.system) + await gate.counter.text(schemas)
    if size > bounds.head_tokens:
        raise RoostError(
            f"System prompt and tool schemas take {size} tokens; {bounds.head_tokens} are theirs in a context of "
            f"{bounds.context_tokens}.",
            fix="Give this role fewer tools, a shorter system prompt, or the slot a larger context.",
        )
    return head, tuple(events)


async def _lines(lines: Sequence[str], most: int, gate: Gate) -> str:
    """Return the first lines, as many as have at most so many tokens together."""
    room = MOST_LINE_BYTES * max(most, 0)
    low, high, size = 0, 0, 0
    for line in lines:
        size += len(line.encode("utf-8", "replace")) + 1
        if size > room:
            break
        high += 1
    while low < high:  # the most of them that fit
        middle = (low + high + 1) // 2
        if await gate.counter.text("\n".join(lines[:middle])) <= most:
            low = middle
        else:
            high = middle - 1
    return "\n".join(lines[:low])
