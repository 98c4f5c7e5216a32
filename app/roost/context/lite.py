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


async def lite_head(
    system: str, parts: Mapping[str, str], tools: Sequence[JsonValue], bounds: Bounds, gate: Gate
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
        text = parts.get(name, "").strip()
        if not text:
            continue
        title = f"## {TITLES[name]}\n"
        most = bounds.lite_tokens(name) - await gate.counter.text(title)
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
