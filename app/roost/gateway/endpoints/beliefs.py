"""What was believed of an endpoint, so that it can be believed again after a restart of the gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from roost.engines.base import Report
from roost.gateway.endpoints.outliers import NEW, Record


@dataclass(frozen=True)
class Belief:
    """One endpoint: by its id, the allocation that it was, what was last said of it, and how long it stays ejected.

    `left_s` are seconds from now on.
    """

    id: str
    report: Report
    allocation: str = ""
    left_s: float = 0.0
    ejections: int = 0
    why: str = ""

    def record(self, now: float) -> Record:
        """Return the record to go on with; requests before the restart are not counted any more."""
        if not self.ejections:
            return NEW
        return Record(half_since=now, ejections=self.ejections, ejected_until=now + self.left_s, why=self.why)


@dataclass(frozen=True)
class Beliefs:
    """All of them, by id."""

    of: dict[str, Belief] = field(default_factory=dict)

    def about(self, endpoint: str, allocation: str) -> Belief | None:
        """Return what was believed of that very server; another one at its address begins anew."""
        known = self.of.get(endpoint)
        return known if known and known.allocation == allocation else None
