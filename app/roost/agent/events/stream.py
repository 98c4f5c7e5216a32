"""Events for one watcher, whatever carries them: heartbeats, and that its key is still good."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from roost.agent.events.feed import ID, LAST, Event

HEARTBEAT_S = 15.0
HEARTBEAT = b": \n\n"
STILL_S = 30.0
"""How often a watcher's key is looked at again."""
REFUSED: Event = {
    "type": "error", "turn": "", "message": "This key is no longer good.", "fix": "Ask with another one.",
}  # fmt: skip
Still = Callable[[], Awaitable[bool]]
"""Says whether the key that asked may still watch."""


class KeyGoneError(Exception):
    """The key was revoked while its owner watched."""


async def events(
    queue: asyncio.Queue[Event],
    still: Still,
    *,
    heartbeat_s: float = HEARTBEAT_S,
    still_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Event | None]:
    """Yield events, and None when there was none for a while: a dead connection is found by writing to it.

    The key is looked at again every `still_s` seconds (`STILL_S`).

    Raises:
        KeyGoneError: the key may no longer watch.
    """
    looked = clock()
    every_s = STILL_S if still_s is None else still_s
    while True:
        try:
            async with asyncio.timeout(min(heartbeat_s, every_s)):
                event: Event | None = await queue.get()
        except TimeoutError:
            event = None
        if clock() - looked >= every_s:
            if not await still():
                raise KeyGoneError
            looked = clock()
        yield event
        if event is not None and event["type"] in LAST:
            return


def sse(event: Event) -> bytes:
    """Return an event as a server-sent event; its id is what a browser sends as `Last-Event-ID` when it comes back."""
    name = event.get(ID)
    line = f"id: {name}\n" if name else ""
    return f"{line}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
