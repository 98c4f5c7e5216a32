"""What the gateway says of its models and of itself, as plain documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roost.engines.base import Report, Skill, State
from roost.gateway.names import also_called
from roost.gateway.routing import ADAPTER_MARK, View

BEST_FIRST = (State.READY, State.LOADING, State.COLD, State.DOWN)
SERVED = (State.READY, State.COLD)  # a cold model is started by the first request for it


NO_REPORT = Report(State.DOWN)


def models_document(
    views: Sequence[View], reports: Mapping[str, Report], aliases: Mapping[str, str], started: int
) -> list[dict[str, object]]:
    """Return the entries of `/v1/models`: each model once, with its best state and what Roost knows beside it.

    `reports` are by endpoint.
    """
    slots = {view.slot for view in views}
    rank = {state: number for number, state in enumerate(BEST_FIRST)}
    entries: dict[str, dict[str, object]] = {}
    for view in sorted(views, key=lambda view: (rank[view.state], view.id)):
        for position, model in enumerate(view.models):
            if model in entries:
                continue
            same = [other for other in views if model in other.models]
            names = [*also_called(view.slot, slots, aliases)] if position == 0 else []
            names += sorted(name for name, stands_for in aliases.items() if stands_for == model)
            report = reports.get(view.id, NO_REPORT)
            can = sorted(skill.value for skill in Skill if skill not in report.lacks) if view.id in reports else None
            entries[model] = {
                "id": model,
                "object": "model",
                "created": started,
                "owned_by": "roost",
                "roost": {
                    "state": view.state.value,
                    "reason": view.reason,
                    "slot": view.slot,
                    "aliases": names,
                    "tier": view.tier or None,
                    "memory": view.memory or None,
                    "adapters": [f"{model}{ADAPTER_MARK}{adapter}" for adapter in view.adapters],
                    "context": report.context,
                    "can": can,
                    "parallel": sum(other.slots or 1 for other in same if other.state is State.READY),
                    "in_flight": sum(other.in_flight for other in same),
                    "endpoints": [
                        {"id": other.id, "state": other.state.value, "reason": other.reason} for other in same
                    ],
                },
            }
    return [entries[name] for name in sorted(entries)]


def find_model(entries: Sequence[dict[str, object]], name: str) -> dict[str, object] | None:
    """Return the entry of a model by its own name or by any other that leads to it."""
    by_alias = None
    for entry in entries:
        if entry["id"] == name:
            return entry
        roost = entry["roost"]
        if isinstance(roost, dict) and name in roost["aliases"]:
            by_alias = entry
    return by_alias


def readiness(views: Sequence[View]) -> tuple[bool, dict[str, object]]:
    """Return whether a request can be served, and the document of `/readyz`; no addresses, it is open to all."""
    ready = any(view.state in SERVED for view in views)
    slots: dict[str, dict[str, int]] = {}
    for view in views:
        counts = slots.setdefault(view.slot, {state.value: 0 for state in State})
        counts[view.state.value] += 1
    reasons = sorted({f"{view.slot}: {view.reason}" for view in views if view.state not in SERVED})
    if not views:
        reasons = ["no model server is registered"]
    return ready, {"ready": ready, "reasons": reasons, "slots": slots}
