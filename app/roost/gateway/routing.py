"""Which endpoint a request goes to: decisions only, plain data in and out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from roost.engines.base import State

AUTO = "auto"
MAIN_SLOT = "main"


@dataclass(frozen=True)
class View:
    """An endpoint as routing sees it. `models` is empty until the endpoint has once said what it serves."""

    id: str
    slot: str
    state: State
    models: tuple[str, ...] = ()
    slots: int | None = None
    in_flight: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Route:
    """Where a name leads: the ready endpoints, each with the model's own name there, or why there is none.

    With no endpoint, `known` says whether waiting makes sense.
    """

    ready: Mapping[str, str]
    known: bool
    reason: str = ""


def resolve(name: str, views: Collection[View], remembered: Mapping[str, str], *, settled: bool) -> Route:
    """Find the endpoints for a model's name, a slot's name, or `auto`.

    `remembered` maps models seen lately to their slot; `settled` is whether the list of endpoints has ever arrived.
    """
    slot = MAIN_SLOT if name == AUTO else name
    in_slot = [view for view in views if view.slot == slot]
    offering = [view for view in views if name in view.models]
    ready: dict[str, str] = {view.id: view.models[0] for view in in_slot if _usable(view)}
    ready |= {view.id: name for view in offering if _usable(view)}
    if ready:
        return Route(ready, known=True)
    unknown = [view for view in views if not view.models]
    known = bool(in_slot or offering) or slot == MAIN_SLOT or name in remembered or slot in remembered.values()
    reason = _reason(in_slot or offering or unknown)
    return Route({}, known=known or bool(unknown) or not settled, reason=reason)


def _usable(view: View) -> bool:
    return view.state is State.READY and bool(view.models)


def _reason(views: Iterable[View]) -> str:
    reasons = sorted({view.reason or view.state.value for view in views})
    return "; ".join(reasons) or "no model server is registered"


def choose(views: Iterable[View], candidates: Collection[str], avoid: Collection[str]) -> str | None:
    """Return the least loaded of the candidates, one that was not tried yet if there is one."""
    able = [view for view in views if view.id in candidates]
    if not able:
        return None
    return min(able, key=lambda view: (view.id in avoid, view.in_flight / (view.slots or 1), view.id)).id
