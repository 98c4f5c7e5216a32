"""What already runs, as picks: it stays where its wish still allows it and its memory is still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from roost.fleet.place.choices import OFF_GPU_DIVISOR, Choice, Site, Table, worth
from roost.fleet.place.fits import Fit, Needs, Room, Way, holds
from roost.fleet.place.search import Asked, Key, Pick, State, counted_quality, domain_of
from roost.fleet.place.wishes import Candidate, Wish
from roost.fleet.plan import Placed
from roost.models.footprint import HOST


def keys_of(asked: Sequence[Asked], present: Sequence[Placed]) -> dict[Key, Placed]:
    """Return which of what runs each wish already has."""
    by_place = {(p.slot, p.host, p.copy): p for p in present}
    found = {one.key: by_place.pop(one.key) for one in asked if one.key in by_place}
    anywhere = {(p.slot, p.copy): p for p in by_place.values()}
    for one in asked:
        slot, host, copy = one.key
        if not host and (slot, copy) in anywhere:
            found[one.key] = anywhere[slot, copy]
    return found


def kept_picks(table: Table, asked: Sequence[Asked], running: dict[Key, Placed], state: State) -> list[Pick]:
    """Return what may stay of what runs, and take its memory in `state`."""
    found = []
    for one in asked:
        placed = running.get(one.key)
        pick = kept_pick(table, one, placed, state) if placed and not placed.rpc else None
        if pick:
            state.add(pick, domain_of(table, pick.number))
            found.append(pick)
    return found


def kept_pick(table: Table, asked: Asked, placed: Placed, state: State) -> Pick | None:
    """Return one that runs as a pick, or None where it cannot stay."""
    number = table.numbers.get(placed.host)
    candidate = table.by_reference.get((placed.model, placed.quantisation))
    if number is None or candidate is None or not still_wished(asked.wish, placed, candidate):
        return None
    site = table.sites[number]
    if asked.wish.host not in {"", site.host.name}:
        return None
    fit = kept_fit(site, candidate, placed, table)
    if fit is None or not holds(state.rooms[number], fit.taken):
        return None
    quality = max(1, worth(candidate, replace(asked.wish, model=candidate.model), site.host.tier))
    if fit.way == "partly" or (fit.way == "processor" and site.fitter.places(asked.wish)):
        quality = max(1, quality // OFF_GPU_DIVISOR)
    choice = Choice(candidate, placed.settings.context_size, quality, fit.way == "processor", fit.way == "partly", fit)
    counted = counted_quality(asked, choice, state, number)
    return None if counted is None else Pick(asked, number, choice, fit, counted)


def still_wished(wish: Wish, placed: Placed, candidate: Candidate) -> bool:
    """Say whether what runs is still what is asked for."""
    settings = placed.settings
    if wish.model:
        named = placed.model == wish.model and wish.quantisation in {"", placed.quantisation}
    else:
        named = candidate.available and candidate.quality(wish.lead) > 0
    context = wish.context_size or settings.context_size
    enough = context >= min(wish.least_context, candidate.context_length) or bool(wish.context_size)
    same = settings == wish.settings(context)
    gpus = set(placed.split.gpus)
    if wish.gpu == "auto":
        where = True
    elif wish.gpu == "none":
        where = not gpus
    else:
        where = bool(gpus) and gpus <= set(wish.gpu)
    return named and enough and same and where


def kept_fit(site: Site, candidate: Candidate, placed: Placed, table: Table) -> Fit | None:
    """Return how it lies there: by what is known now where that is more than was planned, else by the plan.

    So a better estimate does not change a job that runs, and one that shows a danger does.
    """
    places = tuple(i for index in placed.split.gpus for i, gpu in enumerate(site.host.gpus, 1) if gpu.index == index)
    if len(places) != len(placed.split.gpus):
        return None
    now = table.estimates.needs(candidate, placed.settings, placed.split.gpu_layers)
    then = planned_needs(placed, candidate)
    needs = then if now is None or _within(now, then) else now
    taken = [needs.host] + [0] * len(site.host.gpus)
    for place, need in zip(places, needs.gpus, strict=True):
        taken[place] = need
        taken[0] += need if site.host.gpus[place - 1].integrated else 0
    way = way_of(placed, table.estimates.layers(candidate))
    speed = site.fitter.speed(now or needs, places, way)
    return Fit(way, tuple(taken), places, placed.split.gpu_layers, needs, speed)


def planned_needs(placed: Placed, candidate: Candidate) -> Needs:
    """Return what the plan said that it needs."""
    host = placed.estimate.on(HOST)
    gpus = [placed.estimate.on(f"GPU{index}") for index in placed.split.gpus]
    share = candidate.active_share
    numbered = tuple(replace(g, device=f"GPU{i}") for i, g in enumerate(gpus))
    estimate = replace(placed.estimate, devices=(host, *numbered))
    return Needs(
        host.total, tuple(g.total for g in gpus), host.weights * share, tuple(g.weights * share for g in gpus), estimate
    )


def _within(now: Needs, then: Needs) -> bool:
    planned: Room = (then.host, *then.gpus)
    return holds(planned, (now.host, *now.gpus))


def way_of(placed: Placed, layers: int) -> Way:
    """Return in which way a placed server uses its host."""
    if not placed.split.total:
        return "processor"
    if placed.split.total < layers:
        return "partly"
    return "graphics" if len(placed.split.gpus) == 1 else "split"
