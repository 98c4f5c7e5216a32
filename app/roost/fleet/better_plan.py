"""Whether a machine could serve more than it does, if a model hub were allowed. Pure: no hub is asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from roost.fleet.host_plan import FromHub, candidates_of, host_planner
from roost.fleet.place import Candidate
from roost.fleet.plan import HostCapacity, Plan
from roost.models.catalogue import Catalogue
from roost.models.model_slots import ModelSlot, role_of_slot
from roost.models.obtainable import Obtainable, Reach


def better_plan(
    plan: Plan,
    host: HostCapacity,
    catalogue: Catalogue,
    reach: Reach,
    slots: Sequence[ModelSlot],
    optional: Collection[str],
    from_hub: FromHub,
) -> str:
    """Return in one line what the machine could serve beyond `plan`, empty if nothing better is possible.

    Empty too where the operator decided: named a model, works offline, or wants no hub. What headers say counts, so
    that the line stays the same from run to run.
    """
    decided = from_hub == "no" or reach.offline_dir is not None or any(slot.is_explicit for slot in slots)
    if decided or not reach.hub_problem:
        return ""
    all_of_it = replace(reach, hub_problem="")
    more = host_planner(host, catalogue, all_of_it)(slots, optional)
    candidates = candidates_of(catalogue, Obtainable(catalogue, all_of_it))
    if more.refused or _worth(more, candidates) <= _worth(plan, candidates):
        return ""
    models = dict.fromkeys(placed.model for placed in more.placed)
    return f"This machine could serve {', '.join(models)}: sudo roost setup"


def _worth(plan: Plan, candidates: Sequence[Candidate]) -> int:
    """Return the sum of what the models are worth in their slots' roles."""
    known = {(c.model, c.quantisation): c for c in candidates}
    found = [(known.get((p.model, p.quantisation)), role_of_slot(p.slot)) for p in plan.placed]
    return sum(candidate.quality(role) for candidate, role in found if candidate)
