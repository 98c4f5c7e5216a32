"""The arithmetic of limits: pure, all times in seconds of a monotonic clock that the caller brings.

A token bucket (https://en.wikipedia.org/wiki/Token_bucket) kept by what is spent rather than by what is left: a new
one is full whatever its size, and its size may change under way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MINUTE_S = 60.0
STRIKE_EVERY_S = 1.0  # requests refused side by side are one sign of impatience, not many
LONGEST_PENALTY_S = 60.0
FORGIVE_S = 10.0


@dataclass
class Bucket:
    """What was spent of `per_minute`; it drains with time. More than `per_minute` is a debt."""

    spent: float = 0.0
    at: float = 0.0

    def drain(self, per_minute: int, now: float) -> None:
        """Let time pass; a clock that went back passes none."""
        self.spent = max(0.0, self.spent - max(0.0, now - self.at) * per_minute / MINUTE_S)
        self.at = max(self.at, now)

    def wait_s(self, amount: float, per_minute: int, now: float) -> float:
        """Return how long until `amount` may be taken; 0 is now. What exceeds the bucket needs it full."""
        self.drain(per_minute, now)
        over = self.spent + min(amount, per_minute) - per_minute
        return over * MINUTE_S / per_minute if over > 0 else 0.0

    def take(self, amount: float, per_minute: int) -> float:
        """Spend; return what was really taken: at most the whole bucket."""
        taken = min(amount, per_minute)
        self.spent += taken
        return taken

    def settle(self, difference: float) -> None:
        """Correct what was taken by what was really used; the bucket may go into debt, never above full."""
        self.spent = max(0.0, self.spent + difference)

    def remaining(self, per_minute: int, now: float) -> int:
        """Return what could be taken now."""
        self.drain(per_minute, now)
        return max(0, math.floor(per_minute - self.spent))

    def full_in_s(self, per_minute: int, now: float) -> float:
        """Return how long until it is full."""
        self.drain(per_minute, now)
        return self.spent * MINUTE_S / per_minute


@dataclass
class Backoff:
    """How impatient a key is: each second in which it asks before it was told to doubles what it has to wait."""

    strikes: int = 0
    until: float = -math.inf  # before that time it was told not to come
    struck_at: float = -math.inf
    refused_at: float = -math.inf

    def blocked_s(self, now: float) -> float:
        """Return how long the key is still refused only because it was impatient."""
        return max(0.0, self.until - now) if self.strikes else 0.0

    def refuse(self, wait_s: float, now: float) -> float:
        """Note a refusal, `wait_s` before the buckets would allow it; return how long the key has to wait now."""
        if now < self.until and now - self.struck_at >= STRIKE_EVERY_S:
            self.strikes += 1
            self.struck_at = now
        penalty = min(LONGEST_PENALTY_S, 2.0 ** min(self.strikes - 1, 16)) if self.strikes else 0.0
        self.refused_at = now
        self.until = max(self.until, now + max(wait_s, penalty))
        return self.until - now

    def admit(self, now: float) -> None:
        """Note an admission; after a while without a refusal all is forgiven."""
        if self.strikes and now - self.refused_at >= FORGIVE_S:
            self.strikes = 0
