"""How much of a limit one of several replicas may give out before the others have heard of it: pure.

Every replica counts what all of them have taken, as far as it has heard. What it took and not every live one has heard
of yet may be at most its share of what is left: left / replicas. So without any message each keeps to its share, and
with them a replica whom all clients ask gets the whole, share by share.

One request is let in whatever its size when nothing is unheard, else one larger than the share would never be. All may
do so at once, hence the bound: together they give out at most the limit and (replicas - 1) times the largest single
request more, which is a debt that is paid before anything else is let in. docs/decisions/0019-several-gateways.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CLOSE = 1e-9


@dataclass
class Taken:
    """What this process has taken of a limit since it began, and how much of it all live replicas have heard of."""

    total: float = 0.0
    heard: float = 0.0

    @property
    def unheard(self) -> float:
        """Return what some replica does not know of."""
        return max(0.0, self.total - self.heard)


def share_of(spent: float, unheard: float, per_minute: float, replicas: int) -> float:
    """Return how much may be unheard: of what was left before it, this replica's part.

    `spent` is what all took, and has not drained yet, as this replica knows it.
    """
    return max(0.0, per_minute - max(0.0, spent - unheard)) / replicas


def fits(amount: float, spent: float, unheard: float, per_minute: float, replicas: int) -> bool:
    """Say whether `amount` may be taken now as far as other replicas are concerned."""
    if replicas <= 1 or unheard <= CLOSE:
        return True
    return unheard + min(amount, per_minute) <= share_of(spent, unheard, per_minute, replicas) + CLOSE


def runs_short(spent: float, unheard: float, per_minute: float, replicas: int) -> bool:
    """Say whether half of the share is gone, so that the others should hear of it before the next turn."""
    return replicas > 1 and 2 * unheard >= share_of(spent, unheard, per_minute, replicas)


def places(limit: int, elsewhere: int, heard: int, replicas: int) -> int:
    """Return how many requests may run here at once.

    `limit` is for all replicas, `elsewhere` what runs at the others, `heard` what ran here when they last heard. Of the
    places that were free then this replica has its part, and at least one place; so all together run at most
    (replicas - 1) more than the limit.
    """
    if replicas <= 1:
        return limit
    free = max(0, limit - elsewhere - heard)
    return max(1, heard + math.floor(free / replicas))
