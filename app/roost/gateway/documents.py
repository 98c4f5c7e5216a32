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
    offers: dict[str, list[View]] = {}
    for view in views:
        for model in view.models:
            offers.setdefault(model, []).append(view)
    entries = []
    for model in sorted(offers):
        same = sorted(offers[model], key=lambda view: (_rank(model_state(view, model)), view.drained, view.id))
        view = same[0]
        report = reports.get(view.id, NO_REPORT)
        detail = report.details.get(model)
        names = [*also_called(view.slot, slots, aliases)] if _leads(view, model) else []
        names += sorted(name for name, stands_for in aliases.items() if stands_for == model)
        able = sorted(skill.value for skill in Skill if skill not in report.lacks_of(model))
        entries.append(
            {
                "id": model,
                "object": "model",
                "created": started,
                "owned_by": "roost",
                "roost": {
                    "state": model_state(view, model).value,
                    "reason": view.reason,
                    "slot": view.slot,
                    "aliases": names,
                    "tier": view.tier or None,
                    "source": sorted({other.source for other in same if other.source}),
                    "auto": any(not other.by_name for other in same),
                    "memory": view.memory or (detail.memory if detail else None) or None,
                    "adapters": [f"{model}{ADAPTER_MARK}{adapter}" for adapter in view.adapters],
                    "context": report.context_of(model),
                    "context_most": detail.context_most if detail else None,
                    "can": able if view.id in reports else None,
                    "parallel": sum(other.slots or 1 for other in same if other.state is State.READY),
                    "in_flight": sum(other.in_flight for other in same),
                    "endpoints": [_offer(other, model) for other in sorted(same, key=lambda other: other.id)],
                },
            }
        )
    return entries


def _leads(view: View, model: str) -> bool:
    """Say whether who asks for the slot gets this model."""
    return bool(view.models) and view.models[0] == model


def _rank(state: State) -> int:
    return BEST_FIRST.index(state)


def model_state(view: View, model: str) -> State:
    """Return the state of a model at an endpoint: a ready server may have to load it first."""
    return State.COLD if view.state is State.READY and model in view.cold_models else view.state


def _offer(view: View, model: str) -> dict[str, object]:
    return {
        "id": view.id,
        "state": model_state(view, model).value,
        "reason": view.reason,
        "source": view.source,
        "drained": view.drained,
        "ejected": view.ejected,
    }


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
    ready = any(view.state in SERVED and not view.drained for view in views)
    slots: dict[str, dict[str, int]] = {}
    for view in views:
        counts = slots.setdefault(view.slot, {state.value: 0 for state in State})
        counts[view.state.value] += 1
    reasons = sorted({f"{view.slot}: {view.reason}" for view in views if view.state not in SERVED or view.drained})
    if not views:
        reasons = ["no model server is registered"]
    return ready, {"ready": ready, "reasons": reasons, "slots": slots}
