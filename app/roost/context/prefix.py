"""Whether a request begins as the one before it did: a model server keeps what it has read, and reads on from there.

What may differ is the end (the volatile tail of the last request and what came after). Anything earlier costs reading
the prompt again, so it needs a reason: a compaction, another mode, another model. See docs/context.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from roost.context.events import ContextEvent, Kind
from roost.context.messages import Message, Role


class PrefixBrokenError(AssertionError):
    """Two requests in a row begin differently and nobody said why: a fault of ours."""


@dataclass(frozen=True)
class Sent:
    """What a server has read: tool schemas and messages as text, without the volatile tail.

    `tail` is that, `carrier` the number of the message that has it, -1 if none has.
    """

    tools: str
    messages: tuple[str, ...]
    tail: str = ""
    carrier: int = -1


def sent(messages: Sequence[Message], tools: Sequence[JsonValue], tail: str = "") -> Sent:
    """Return what a request has a server read; `tail` is the volatile end of its last user message."""
    texts = []
    ends = [n for n, message in enumerate(messages) if message.role is Role.USER and message.text.endswith(tail)]
    carrier = ends[-1] if tail and ends else -1  # the same words earlier are what somebody said: a summary, say
    for number, message in enumerate(messages):
        text = message.text.removesuffix(tail) if number == carrier else message.text
        calls = [(call.id, call.name, call.arguments) for call in message.calls]
        texts.append(json.dumps([message.role.value, text.rstrip(), calls, message.call_id]))
    return Sent(json.dumps(list(tools)), tuple(texts), tail if carrier >= 0 else "", carrier)


def common(before: Sent, after: Sent) -> int:
    """Return how many messages at the start are the same; -1 if already the tool schemas differ.

    The tail of the request before may be another one where nothing stood behind it, and gone once a turn has begun.
    """
    if before.tools != after.tools:
        return -1
    same = 0
    for one, other in zip(before.messages, after.messages, strict=False):
        if one != other:
            break
        same += 1
    moved = before.carrier == after.carrier and before.tail != after.tail
    if moved and 0 <= before.carrier < len(before.messages) - 1:  # what stood behind it is read again, too
        return min(same, before.carrier)
    return same


class PrefixGuard:
    """Compares each request of a conversation and role with the one before it."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._before: dict[str, Sent] = {}
        self.broken: list[ContextEvent] = []
        """What broke without a reason, for metrics."""

    def check(
        self, who: str, messages: Sequence[Message], tools: Sequence[JsonValue], *, tail: str = "", reason: str = ""
    ) -> ContextEvent | None:
        """Note a request of `who` (a conversation and role); return an event if its beginning is not the last one's.

        Raises:
            PrefixBrokenError: no reason was given, and the guard is strict (as in tests).
        """
        now = sent(messages, tools, tail)
        before = self._before.get(who)
        self._before[who] = now
        if before is None:
            return None
        same = common(before, now)
        if same >= len(before.messages):
            return None
        event = ContextEvent(
            kind=Kind.PREFIX_BROKEN,
            message=f"The prompt is read again from message {max(same, 0) + 1} on: {reason or 'no reason given'}.",
            detail={"same": same, "of": len(before.messages), "reason": reason, "who": who},
        )
        if not reason:
            self.broken.append(event)
            if self._strict:
                raise PrefixBrokenError(event.message)
        return event

    def forget(self, who: str) -> None:
        """Begin anew: the next request is not compared."""
        self._before.pop(who, None)
