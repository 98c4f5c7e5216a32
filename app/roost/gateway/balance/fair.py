"""Who is next: fair between keys, by the tokens that their requests cost. Pure.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each key has a tag in virtual time, the next request is that of
the key with the smallest one, and what it costs moves the tag on. Within a key it is first come, first served. A key
that asked for nothing for a while begins at the present virtual time: it has saved nothing up, and owes nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Line(Generic[T]):
    tag: float
    waiting: deque[tuple[T, float]] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """Requests that wait, each with its key and its cost in tokens, which is above 0."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[T]] = {}
        self._now = 0.0  # virtual time: the tag of what was served last
        self._size = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._size

    def waiting(self, key: str) -> int:
        """Return how many of a key wait."""
        line = self._lines.get(key)
        return len(line.waiting) if line else 0

    def add(self, key: str, cost: float, item: T, *, first: bool = False) -> None:
        """Let an item wait behind those of its key, or before them if it was served already and that was in vain."""
        waiting = self._line(key).waiting
        if first:
            waiting.appendleft((item, cost))
        else:
            waiting.append((item, cost))
        self._size += 1

    def discard(self, key: str, item: T) -> bool:
        """Take an item out that will not be served, which costs its key nothing; return whether it waited."""
        line = self._lines.get(key)
        for entry in line.waiting if line else ():
            if entry[0] is item and line:
                line.waiting.remove(entry)
                self._size -= 1
                return True
        return False

    def charge(self, key: str, cost: float) -> None:
        """Take note that a key was served; where nobody waits, nobody owes anything."""
        if not self._size:
            self._lines.clear()
            return
        line = self._line(key)
        self._now = max(self._now, line.tag)
        line.tag += cost

    def serve(self, key: str, item: T) -> None:
        """Take an item out because it is served; its cost counts for its key.

        Raises:
            LookupError: it does not wait.
        """
        line = self._lines[key]
        cost = next(cost for waiting, cost in line.waiting if waiting is item)
        self.discard(key, item)
        self.charge(key, cost)

    def __iter__(self) -> Iterator[T]:
        """Yield what waits in the order in which it would be served; the queue may not change meanwhile."""
        heads = [(max(line.tag, self._now), key, 0) for key, line in self._lines.items() if line.waiting]
        heapq.heapify(heads)
        while heads:
            tag, key, at = heapq.heappop(heads)
            waiting = self._lines[key].waiting
            item, cost = waiting[at]
            yield item
            if at + 1 < len(waiting):
                heapq.heappush(heads, (tag + cost, key, at + 1))

    def longest(self) -> str:
        """Return the key of which most wait; nothing if nobody does."""
        return max(self._lines, key=lambda key: (len(self._lines[key].waiting), key), default="")

    def newest(self, key: str) -> T:
        """Return what a key has waited for the shortest time with."""
        return self._lines[key].waiting[-1][0]

    def _line(self, key: str) -> _Line[T]:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(self._now)
        elif not line.waiting:
            line.tag = max(line.tag, self._now)
        return line
