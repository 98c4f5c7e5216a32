"""A circuit breaker for each endpoint, a budget for retries, and the pause before one. Pure: the time is given.

Closed, open, half-open as in Nygard's "Release It!"; the budget is a share of the requests and a small fixed rate, as
in Finagle and Envoy; the pause has "full jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES = 3  # in a row open the breaker
REST_S = 1.0  # for so long at first, doubled by each trial that fails
LONGEST_REST_S = 30.0
PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


@dataclass
class Breaker:
    """Whether an endpoint that answers its probes but fails its requests gets more of them."""

    failures: int = 0
    rests: int = 0  # in a row
    until: float = 0.0
    trial: bool = False  # one request is let through to see

    def resting(self, now: float) -> bool:
        """Say whether it shall get nothing now; after a rest it gets one request."""
        return bool(self.rests) and (now < self.until or self.trial)

    def begin(self) -> None:
        """Take note that it gets a request."""
        self.trial = bool(self.rests)

    def left(self) -> None:
        """Take note that a request ended without a verdict."""
        self.trial = False

    def succeeded(self) -> None:
        """Take note that a request was answered."""
        self.failures = self.rests = 0
        self.trial = False

    def failed(self, now: float, chance: float) -> bool:
        """Take note that a request failed; return whether that opened the breaker. `chance` (0 to 1) is jitter."""
        self.failures += 1
        rests = self.rests and now < self.until  # what fails then was begun before
        if not self.trial and (self.failures < FAILURES or rests):
            return False
        self.trial = False
        self.rests += 1
        self.until = now + min(LONGEST_REST_S, REST_S * 2.0 ** (self.rests - 1)) * (0.8 + 0.4 * chance)
        return True


@dataclass
class RetryBudget:
    """How many retries there may be: `share` of the requests, and `per_s` beside that for where there are few."""

    share: float = 0.2
    per_s: float = 10.0
    most: float = 100.0
    left: float = 100.0
    at: float = 0.0

    def requested(self) -> None:
        """Take note of a request."""
        self.left = min(self.most, self.left + self.share)

    def spend(self, now: float) -> bool:
        """Take one retry; return False if there is none left."""
        self.left = min(self.most, self.left + max(0.0, now - self.at) * self.per_s)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def pause_s(attempt: int, chance: float) -> float:
    """Return how long to wait before trying for the `attempt`th time (from 1) what failed; `chance` from 0 to 1."""
    return chance * min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** min(attempt, 16))
