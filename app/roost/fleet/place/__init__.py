"""What runs where: hosts, models and wishes in, a plan out. A pure function; `docs/placement.md` has the objective."""

from __future__ import annotations

from collections.abc import Sequence

from roost.fleet.place.choices import Table
from roost.fleet.place.fits import Estimates
from roost.fleet.place.planning import SPEED_WORTH_A_MOVE, WORTH_A_MOVE, Planning
from roost.fleet.place.search import Asked
from roost.fleet.place.wishes import Candidate, Wish, shape_of
from roost.fleet.plan import HostCapacity, Plan
from roost.models.footprint import Estimator

__all__ = ["SPEED_WORTH_A_MOVE", "WORTH_A_MOVE", "Candidate", "Wish", "place", "shape_of"]


def place(
    hosts: Sequence[HostCapacity],
    candidates: Sequence[Candidate],
    wishes: Sequence[Wish],
    estimator: Estimator,
    present: Plan | None = None,
) -> Plan:
    """Return the plan. It depends neither on the order of hosts, models and wishes nor on anything outside.

    `present` is what runs: it stays as far as it is still wished, still fits, and nothing much better is possible.

    Raises:
        ValueError: two hosts, models or wishes have the same name.
    """
    _distinct("hosts", [h.name for h in hosts])
    _distinct("models", [c.reference for c in candidates])
    asked = [Asked(w, copy) for w in sorted(wishes, key=lambda w: w.order) for copy in range(max(1, w.copies))]
    _distinct("wishes", [str(a.key) for a in asked])
    table = Table(hosts, candidates, Estimates(estimator))
    return Planning(table, asked, present or Plan(())).run()


def _distinct(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{what} named twice: {', '.join(twice)}")
