"""The last decisions, for the web page and `roost route log`. What people write is never in them, only its features."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from roost.gateway.choice.decide import Decision
from roost.gateway.choice.features import Features

KEPT = 256


@dataclass
class Decided:
    """A decision and what became of it. `at` is seconds since 1970 (UTC); `status` 0: it is not over."""

    decision: Decision
    features: Features
    request_id: str = ""
    key: str = ""
    kind: str = ""
    at: float = field(default_factory=time.time)
    took_ms: float = 0.0  # to decide
    model: str = ""  # that answered in the end
    status: int = 0
    cascade: list[dict[str, object]] = field(default_factory=list)  # answers that were not good enough

    def document(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "at": round(self.at, 3),
            "request_id": self.request_id,
            "key": self.key,
            "kind": self.kind,
            **decision_document(self.decision),
            "features": asdict(self.features),
            "took_ms": round(self.took_ms, 3),
            "answered_by": self.model or None,
            "status": self.status or None,
            "cascade": list(self.cascade),
        }


def decision_document(decision: Decision) -> dict[str, object]:
    """Return a decision with its reasons as the API shows it."""
    return {
        "slot": decision.slot,
        "model": decision.model or None,
        "reason": decision.reason.value,
        "level": decision.score.level.value,
        "points": decision.score.points,
        "points_for": decision.score.parts,
        "probabilities": {name: round(value, 4) for name, value in decision.guess.ranked()},
        "sure": bool(decision.guess.subject),
        "candidates": [
            {
                "slot": one.slot,
                "model": one.model,
                "ready": one.ready,
                "context": one.context,
                "sees": one.sees,
                "calls": one.calls,
                "strength": one.strength or None,
                "why_not": one.why_not or None,
            }
            for one in decision.among
        ],
    }


class Ring:
    """The newest decisions of this process, so many and no more."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[Decided] = deque(maxlen=kept)

    def add(self, decided: Decided) -> None:
        """Take one; the oldest goes."""
        self._kept.append(decided)

    def newest(self, count: int = KEPT) -> Iterator[Decided]:
        """Yield the newest first."""
        for number, decided in enumerate(reversed(self._kept)):
            if number >= count:
                return
            yield decided
