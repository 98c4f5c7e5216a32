"""The slots of a `llama-server`: whether they move, and what they know, saved and restored.

`/slots` and `/slots/ID?action=save|restore` as in llama.cpp's tools/server/README.md; seen with its build 11669.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from pydantic import BaseModel, Field

Mark = tuple[int, int, int, int]

WORTH_TOKENS = 64  # what is shorter is not worth a file; a canary is shorter with most templates
OVER_TOKENS = 256  # a slot that holds more has been used by somebody


class _NextToken(BaseModel):
    n_decoded: int


class Slot(BaseModel):
    """One entry of `/slots`. What a server does not say is None."""

    id: int = 0
    is_processing: bool
    id_task: int | None = None
    n_ctx: int | None = None
    n_prompt_tokens: int | None = None  # the conversation that it holds, answers included
    n_prompt_tokens_processed: int | None = None
    next_token: list[_NextToken] = Field(default_factory=list)

    def mark(self) -> Mark | None:
        """Return something that changes whenever the slot gets on: a part of the prompt, or a token of the answer."""
        if self.id_task is None or self.n_prompt_tokens_processed is None or not self.next_token:
            return None
        return self.id, self.id_task, self.n_prompt_tokens_processed, self.next_token[0].n_decoded

    def holds(self) -> int:
        """Return how many tokens it knows; 0 while it is at work, for then they change."""
        return 0 if self.is_processing else self.n_prompt_tokens or 0


class SlotList(BaseModel):
    """All slots of a server."""

    slots: list[Slot]

    @classmethod
    def read(cls, body: bytes) -> SlotList:
        """Read the answer of `/slots`; pydantic's ValidationError, a ValueError, if it is something else."""
        return cls.model_validate_json(b'{"slots":' + body + b"}")

    def working(self) -> list[Slot]:
        """Return those that are at work."""
        return [slot for slot in self.slots if slot.is_processing]

    def used(self) -> float | None:
        """Return which share of the context of all slots is in use, 0 to 1; None where the server does not say."""
        room = sum(slot.n_ctx or 0 for slot in self.slots)
        return min(1.0, sum(slot.n_prompt_tokens or 0 for slot in self.slots) / room) if room else None

    def all_busy(self) -> bool:
        """Say whether all are at work."""
        return bool(self.slots) and all(slot.is_processing for slot in self.slots)


class Motion(Enum):
    """What two looks at the slots say."""

    UNKNOWN = auto()  # nothing is at work, or the server does not tell
    MOVED = auto()
    STILL = auto()
    STALLED = auto()


class Progress:
    """Compares one look at the slots with those before.

    The server works on all its slots in one loop, so only all of them standing still says that it is stuck: one alone
    may wait for another's long prompt. A long prompt shows no progress while one batch of it is computed.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._marks: frozenset[Mark] = frozenset()
        self._since = 0.0

    def look(self, slots: Sequence[Slot], now: float) -> Motion:
        """Return what has happened until `now`, in seconds of one clock."""
        marks = [slot.mark() for slot in slots if slot.is_processing]
        known = frozenset(mark for mark in marks if mark is not None)
        if not known or None in marks:
            self._marks = frozenset()
            return Motion.UNKNOWN
        if known != self._marks:
            self._marks, self._since = known, now
            return Motion.MOVED
        return Motion.STALLED if now - self._since >= self._stall_s else Motion.STILL


class Saved(BaseModel):
    """The answer to a save or a restore: how many tokens."""

    n_saved: int = 0
    n_restored: int = 0
