"""Making messages fit a bound when compaction was not enough: the longest are shortened first, each with a marker and
the reference of the whole; only then whole turns are left out, with a line in their place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import JsonValue

from roost.context.gate import Gate
from roost.context.messages import Call, Message

LEAST_TOKENS = 64
"""No text is shortened to less: below it the marker is most of it."""


def level(sizes: Sequence[int], room: int) -> int:
    """Return the cap under which texts of these sizes fit `room` together: the longest are cut to one level.

    0 if there is room for nothing; the largest size if all of them fit.
    """
    if not sizes:
        return 0
    left, remaining = max(room, 0), sorted(sizes)
    for number, size in enumerate(remaining):
        share = left // (len(remaining) - number)
        if size > share:
            return share
        left -= size
    return remaining[-1]


async def shorten(message: Message, tokens: int, gate: Gate) -> Message:
    """Return a message whose text, and the longest texts in its calls, take at most about `tokens` each."""
    text = (await gate.admit(message.text, tokens)).text if message.text else ""
    calls = [await _shorter_call(call, tokens, gate) for call in message.calls]
    return message.model_copy(update={"text": text, "calls": tuple(calls)})


async def _shorter_call(call: Call, tokens: int, gate: Gate) -> Call:
    if await gate.counter.text(call.arguments) <= tokens:
        return call
    try:
        value: JsonValue = json.loads(call.arguments)
    except (ValueError, RecursionError):
        value = call.arguments
    if not isinstance(value, dict):
        value = {"arguments": value}
    kept: dict[str, JsonValue] = {}
    for name, part in value.items():
        if isinstance(part, str):
            kept[name] = (await gate.admit(part, max(tokens // len(value), 1))).text
        else:
            text = json.dumps(part, ensure_ascii=False)
            admitted = await gate.admit(text, max(tokens // len(value), 1))
            kept[name] = part if admitted.text == text else admitted.text
    return call.model_copy(update={"arguments": json.dumps(kept, ensure_ascii=False)})
