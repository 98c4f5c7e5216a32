"""What already runs, as picks: it stays where its wish still allows it and its memory is still there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from roost.fleet.place.choices import Table, off_graphics, worth
from roost.fleet.place.fits import Fit, Offer, Room, Site, Way, holds, needs_of
from roost.fleet.place.search import Asked, Key, Pick, State
from roost.fleet.place.wishes import Candidate, Wish
from roost.fleet.plan import Placed


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


def stood_in(asked: Sequence[Asked], present: Sequence[Placed], hosts: Collection[str]) -> list[Placed]:
    """Return what runs; what may run anywhere and whose host is gone, on the first of its spares that is there."""
    anywhere = {one.wish.slot for one in asked if not one.wish.host}
    found = []
    for placed in present:
        moves = placed.slot in anywhere and placed.host not in hosts and not placed.rpc
        spare = next((name for name in placed.spares if name in hosts), "") if moves else ""
        found.append(replace(placed, host=spare, spares=()) if spare else placed)
    return found


def kept_picks(table: Table, asked: Sequence[Asked], running: dict[Key, Placed], state: State) -> list[Pick]:
    """Return what may stay of what runs, and take its memory in `state`."""
    found = []
    for one in asked:
        placed = running.get(one.key)
        pick = kept_pick(table, one, placed, state) if placed and not placed.rpc else None
        if pick:
            state.add(pick, table.sites[pick.number].domain)
            found.append(pick)
    return found


def kept_pick(table: Table, asked: Asked, placed: Placed, state: State) -> Pick | None:
    """Return one that runs as a pick, or None where it cannot stay."""
    number = table.numbers.get(placed.host)
    candidate = table.by_reference.get((placed.model, placed.quantisation))
    if number is None or candidate is None or not still_wished(asked.wish, placed, candidate):
        return None
    site = table.sites[number]
    if asked.wish.host not in {"", site.host.name} or not candidate.lies_on(site.host.name):
        return None
    fit = kept_fit(site, candidate, placed, state.rooms[number])
    if fit is None:
        return None
    quality = max(1, worth(candidate, replace(asked.wish, model=candidate.model), site.host.tier))
    lost = fit.way == "partly" or (fit.way == "processor" and bool(site.places(asked.wish)))
    offer = Offer(
        candidate, placed.settings, off_graphics(quality) if lost else quality, bool(fit.places), fit.way == "partly",
        fit.needs,
    )  # fmt: skip
    again = not asked.wish.model and candidate.model in state.models[number]
    if again and asked.wish.optional:
        return None
    return Pick(asked, number, offer, fit, 0 if again else offer.quality)


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


def kept_fit(site: Site, candidate: Candidate, placed: Placed, room: Room) -> Fit | None:
    """Return how it lies there: by what is known now where that is more than was planned, else by the plan.

    So a better estimate does not change a job that runs, and one that shows a danger does.
    """
    places = tuple(i for index in placed.split.gpus for i, gpu in enumerate(site.host.gpus, 1) if gpu.index == index)
    if len(places) != len(placed.split.gpus):
        return None
    now = site.estimates.needs(candidate, placed.settings, placed.split.gpu_layers)
    then = needs_of(placed.estimate, [f"GPU{index}" for index in placed.split.gpus], candidate)
    needs = now or then
    if now and holds((then.host, *then.gpus), (now.host, *now.gpus)):
        needs = replace(then, host_read=now.host_read, gpu_read=now.gpu_read)
    return site.taking(needs, places, placed.split.gpu_layers, way_of(placed, site.estimates.layers(candidate)), room)


def way_of(placed: Placed, layers: int) -> Way:
    """Return in which way a placed server uses its host."""
    if not placed.split.total:
        return "processor"
    if placed.split.total < layers:
        return "partly"
    return "graphics" if len(placed.split.gpus) == 1 else "split"
