"""The events of one session: numbered, told to all who watch, the latest kept for who lost the connection."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque

from pydantic import JsonValue

WATCHER_EVENTS = 4096
KEPT_EVENTS = 2048
KEPT_BYTES = 256 << 10
MOST_WATCHERS = 32
Event = dict[str, JsonValue]
ID = "event_id"
"""The field with an event's id: `EPOCH-NUMBER`. What only describes a watcher's own place has none."""
IDLE: Event = {"type": "idle"}
LAGGING: Event = {"type": "lagging"}
"""A watcher that did not keep up is let go: what it missed stands in the session."""
MISSED: Event = {"type": "missed"}
"""What came after the event that a watcher names is not kept any more: it stands in the session."""
STOPPING: Event = {"type": "stopping"}
"""The service stops: come again."""
REMOVED: Event = {"type": "removed"}
"""The conversation was removed."""
LAST = frozenset({"lagging", "stopping", "removed"})
"""Types of events after which a watcher gets nothing more."""


class Feed:
    """Events of one session. `epoch` tells the numbers of this process from those of the one before."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(4)
        self._number = 0
        self._kept: deque[tuple[int, Event, int]] = deque()
        self._bytes = 0
        self._watchers: set[asyncio.Queue[Event]] = set()
        self._turn_began = 0

    @property
    def watched(self) -> bool:
        """Say whether somebody watches."""
        return bool(self._watchers)

    @property
    def full(self) -> bool:
        """Say whether as many watch as may."""
        return len(self._watchers) >= MOST_WATCHERS

    def tell(self, event: Event) -> None:
        """Tell all who watch; one who does not keep up is let go."""
        self._number += 1
        told = {**event, ID: f"{self._epoch}-{self._number}"}
        if event["type"] == "turn":
            self._turn_began = self._number
        self._keep(told)
        for queue in list(self._watchers):
            self._give(queue, told)

    def watch(self, after: str = "", *, whole_turn: bool = False, idle: bool = False) -> asyncio.Queue[Event]:
        """Return a queue that gets what happens from now on; see `unwatch`.

        First comes what happened after the event `after`, or since the turn under way began (`whole_turn`), as far as
        it is kept; then, if `idle`, that nothing is under way.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue(WATCHER_EVENTS)
        last: Event = {}
        for last in self._since(after, whole_turn=whole_turn and not idle):
            queue.put_nowait(last)
        if idle and last.get("type") != IDLE["type"]:
            queue.put_nowait(IDLE)
        self._watchers.add(queue)
        return queue

    def unwatch(self, queue: asyncio.Queue[Event]) -> None:
        """Let go of a watcher."""
        self._watchers.discard(queue)

    def let_go(self, why: Event = STOPPING) -> None:
        """Tell all who watch that the service stops, or why else nothing more comes, and let them go."""
        for queue in list(self._watchers):
            self._give(queue, why)
            self._watchers.discard(queue)

    def _since(self, after: str, *, whole_turn: bool) -> list[Event]:
        if after:
            epoch, _, digits = after.rpartition("-")
            number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else -1
            if epoch != self._epoch or not 0 <= number <= self._number:
                return [MISSED]
        elif whole_turn and self._turn_began:
            number = self._turn_began - 1
        else:
            return []
        first = self._kept[0][0] if self._kept else self._number + 1
        missed = [MISSED] if number + 1 < first else []
        return [*missed, *(event for at, event, _ in self._kept if at > number)]

    def _keep(self, event: Event) -> None:
        size = len(json.dumps(event))
        self._kept.append((self._number, event, size))
        self._bytes += size
        while len(self._kept) > KEPT_EVENTS or self._bytes > KEPT_BYTES:
            self._bytes -= self._kept.popleft()[2]

    def _give(self, queue: asyncio.Queue[Event], event: Event) -> None:
        try:
            queue.put_nowait(event)
        except asyncio.QueueFull:
            self._watchers.discard(queue)
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(LAGGING)
