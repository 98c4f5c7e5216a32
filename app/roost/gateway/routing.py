"""Which endpoints a name leads to: decisions only, plain data in and out. Which of them it is: `balance/pick.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from roost.engines.base import State
from roost.fleet.endpoint_list import RESERVED as ROLES
from roost.ops.api_keys import ApiKey

AUTO = "auto"
MAIN_SLOT = "main"
ADAPTER_MARK = "+"  # model+adapter
EMBEDDING = "embedding"  # no other model can give the answers of such a slot


@dataclass(frozen=True)
class View:
    """An endpoint as routing sees it, or a planned one that is not there.

    `models` is empty until the endpoint has once said what it serves. `memory` is what is planned for it, in bytes, 0
    if unknown; `job` is its job's name, if it has one. `cold_models` are those that it would have to load first.
    `ejected`: it failed more than its peers and gets requests only where nobody else can. `drained`: it gets no new
    ones. `by_name`: what it serves is used where somebody asked for it by its name only, never for a role or `auto`.
    `moves`: its job runs on another machine when its own one is lost.
    """

    id: str
    slot: str
    state: State
    models: tuple[str, ...] = ()
    slots: int | None = None
    in_flight: int = 0
    reason: str = ""
    job: str = ""
    memory: int = 0
    adapters: tuple[str, ...] = ()
    tier: str = ""
    cold_models: frozenset[str] = frozenset()
    ejected: bool = False
    drained: bool = False
    by_name: bool = False
    source: str = ""
    moves: bool = False


@dataclass(frozen=True)
class Route:
    """Where a name leads: the ready endpoints, each with the model's own name there, or why there is none.

    With no endpoint, `known` says whether waiting makes sense, `cold` which jobs would have to be started, and `state`
    what the most promising of those that offer the model is in. `moves`: one of them comes on another machine.
    `adapter` is the LoRA adapter that the name asks for.
    """

    ready: Mapping[str, str]
    known: bool
    reason: str = ""
    cold: tuple[str, ...] = ()
    state: State = State.DOWN
    adapter: str = ""
    moves: bool = False


def resolve(name: str, views: Collection[View], remembered: Mapping[str, str], *, settled: bool) -> Route:
    """Find the endpoints for a model's name, a slot's name, or `auto`, each with `+ADAPTER` or without.

    `remembered` maps models seen lately to their slot; `settled` is whether the list of endpoints has ever arrived.
    """
    base, mark, adapter = name.rpartition(ADAPTER_MARK)
    if mark and not any(name in view.models for view in views):
        able = [view for view in views if adapter in view.adapters]
        return replace(resolve(base, able, {}, settled=settled), adapter=adapter)
    slot = MAIN_SLOT if name == AUTO else name
    in_slot = [view for view in views if view.slot == slot]
    offering = [view for view in views if name in view.models]
    if name in ROLES or in_slot or any(not view.by_name for view in offering):
        # Who means a role, or the fleet's own model, does not mean one outside that happens to be called so.
        offering = [view for view in offering if not view.by_name or view.slot == slot]
    ready: dict[str, str] = {view.id: view.models[0] for view in in_slot if _usable(view)}
    ready |= {view.id: name for view in offering if _usable(view)}
    if ready:
        ejected = {view.id for view in views if view.ejected}
        return Route({n: m for n, m in ready.items() if n not in ejected} or ready, known=True)
    unknown = [view for view in views if not view.models]
    known = bool(in_slot or offering) or slot == MAIN_SLOT or name in remembered or slot in remembered.values()
    reason = _reason(in_slot or offering or unknown)
    states = {view.state for view in in_slot or offering}
    state = next((state for state in (State.COLD, State.LOADING) if state in states), State.DOWN)
    cold = tuple(sorted({view.job for view in in_slot or offering if view.state is State.COLD and view.job}))
    moves = any(view.moves for view in in_slot or offering)
    known = known or bool(unknown) or not settled
    return Route({}, known=known, reason=reason, cold=cold, state=state, moves=moves)


def resolve_for(
    key: ApiKey | None, name: str, views: Collection[View], remembered: Mapping[str, str], *, settled: bool
) -> Route:
    """Find the endpoints like `resolve`, among those that a key may use; what it may not use does not exist for it."""
    if key is None or not key.models:
        return resolve(name, views, remembered, settled=settled)
    mine = visible_to(key, views)
    known = {model: slot for model, slot in remembered.items() if key.may_use(model, slot)}
    route = resolve(name, mine, known, settled=settled)
    hidden = not _offered(name, mine) and _offered(name, views)
    return replace(route, known=False) if hidden else route


def visible_to(key: ApiKey, views: Collection[View]) -> list[View]:
    """Return the endpoints that a key may use, with those of their models that it may use."""
    if not key.models:
        return list(views)
    found = []
    for view in views:
        models = tuple(model for model in view.models if key.may_use(model, view.slot))
        if models or not view.models:
            found.append(replace(view, models=models))
    return found


def _offered(name: str, views: Collection[View]) -> bool:
    base = name.rpartition(ADAPTER_MARK)[0] or name
    slot = MAIN_SLOT if base == AUTO else base
    return any(view.slot == slot or base in view.models or name in view.models for view in views)


def substitutes(name: str, views: Collection[View], order: Mapping[str, Sequence[str]]) -> list[str]:
    """Return which other slots may answer for `name` while it cannot, best first.

    `order` says so by slot or model; what it does not mention goes to the lighter ones, the heaviest of them first.
    Nothing stands in for an embedding model, nor does one for another model.
    """
    base = name.rpartition(ADAPTER_MARK)[0] or name
    slot = MAIN_SLOT if base == AUTO else base
    chosen = [view for view in views if view.slot == slot or base in view.models]
    slots = {view.slot for view in chosen}
    if any(embeds(slot) for slot in slots):
        return []
    for key in (base, slot, *sorted(slots)):
        if key in order:
            return [other for other in order[key] if not embeds(other)]
    weight = min((view.memory for view in chosen), default=0)
    others = [view for view in views if view.slot not in slots and not embeds(view.slot)]
    lighter = {view.slot: view.memory for view in others if 0 < view.memory < weight}
    return sorted(lighter, key=lambda other: (-lighter[other], other))


def embeds(slot: str) -> bool:
    """Say whether a slot is for embeddings, by its name."""
    return slot == EMBEDDING or slot.startswith(f"{EMBEDDING}-")


def _usable(view: View) -> bool:
    return view.state is State.READY and bool(view.models) and not view.drained


def _reason(views: Iterable[View]) -> str:
    reasons = sorted({view.reason or view.state.value for view in views})
    return "; ".join(reasons) or "no model server is registered"
