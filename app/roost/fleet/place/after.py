"""What is done with the memory that is left: room kept on spare hosts, then longer contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roost.fleet.place.choices import Table, refit
from roost.fleet.place.fits import Room, holds, less, more
from roost.fleet.place.search import Key, Pick, State, domain_of
from roost.fleet.place.wishes import WISHED_CONTEXT

SPARES = 1  # hosts with room kept for a server that may run anywhere
SPARE_LOOKS = 64  # hosts that are looked at for it, those with most room first


class Reserve:
    """Room kept on spare hosts. Hosts fail one at a time, so what is kept for different ones may overlap."""

    def __init__(self, table: Table, state: State) -> None:
        """Keep nothing yet."""
        self.table, self.state = table, state
        self._kept: dict[int, dict[int, dict[Key, Room]]] = {}  # spare -> failing host -> server -> room
        self._spares: dict[Key, list[int]] = {}

    def room(self, number: int) -> Room:
        """Return what is left of a host beside what is kept there."""
        left = self.state.rooms[number]
        kept = [self._sum(number, failing) for failing in self._kept.get(number, {})]
        most = tuple(max(entries) for entries in zip(*kept, strict=True)) if kept else (0,) * len(left)
        return less(left, most)

    def _sum(self, number: int, failing: int, without: Key | None = None) -> Room:
        kept = self._kept.get(number, {}).get(failing, {})
        total: Room = (0,) * len(self.state.rooms[number])
        for key, room in kept.items():
            total = more(total, room) if key != without else total
        return total

    def _fit(self, pick: Pick, number: int, context: int) -> Room | None:
        """Return what a server would take of a spare when its host fails, or None."""
        key, choice = pick.asked.key, pick.choice
        room = less(self.state.rooms[number], self._sum(number, pick.number, key))
        fit = refit(
            self.table.sites[number].fitter, choice.candidate, context, pick.asked.wish, room,
            on_processor=not pick.fit.places, partly=False,
        )  # fmt: skip
        return fit.taken if fit else None

    def find(self, pick: Pick, order: Sequence[int]) -> None:
        """Keep room for a server elsewhere, in another failure domain first."""
        domain = domain_of(self.table, pick.number)
        looked = [n for n in order if n != pick.number][:SPARE_LOOKS]
        looked.sort(key=lambda n: domain_of(self.table, n) == domain)
        found = self._spares.setdefault(pick.asked.key, [])
        for number in looked:
            if len(found) == SPARES:
                break
            taken = self._fit(pick, number, pick.choice.context)
            if taken is not None:
                self._kept.setdefault(number, {}).setdefault(pick.number, {})[pick.asked.key] = taken
                found.append(number)

    def lengthen(self, pick: Pick, context: int) -> bool:
        """Keep more room for a server whose context grows; False, and nothing changes, where a spare lacks it."""
        key = pick.asked.key
        found = {number: self._fit(pick, number, context) for number in self._spares.get(key, [])}
        if None in found.values():
            return False
        for number, taken in found.items():
            if taken is not None:
                self._kept[number][pick.number][key] = taken
        return True

    def names(self, key: Key) -> tuple[str, ...]:
        """Return the hosts with room kept for a server."""
        return tuple(self.table.sites[n].host.name for n in self._spares.get(key, []))


def grow(table: Table, picks: Sequence[Pick], reserve: Reserve, limits: Mapping[Key, int]) -> list[Pick]:
    """Double the contexts that were not named, the most important slot first, up to `limits` where there is one."""
    current = {pick.asked.key: pick for pick in picks}
    order = sorted((p.asked for p in picks), key=lambda a: (a.wish.order, a.copy))
    growing = [a for a in order if not a.wish.context_size]
    while growing:
        still = []
        for asked in growing:
            pick = current[asked.key]
            longer = longer_context(table, pick, reserve, limits.get(asked.key, WISHED_CONTEXT))
            if longer:
                domain = domain_of(table, pick.number)
                reserve.state.drop(pick, domain)
                reserve.state.add(longer, domain)
                current[asked.key] = longer
                still.append(asked)
        growing = still
    return [current[pick.asked.key] for pick in picks]


def longer_context(table: Table, pick: Pick, reserve: Reserve, limit: int) -> Pick | None:
    """Return the pick with twice the context, if it knows and holds so much."""
    candidate = pick.choice.candidate
    context = min(2 * pick.choice.context, candidate.context_length, limit)
    if context <= pick.choice.context:
        return None
    fitter = table.sites[pick.number].fitter
    room = more(reserve.room(pick.number), pick.fit.taken)
    needs = table.estimates.needs(candidate, pick.asked.wish.settings(context), pick.fit.layers)
    if needs is None:
        return None
    taken = [needs.host] + [0] * (len(room) - 1)
    for place, need in zip(pick.fit.places, needs.gpus, strict=True):
        taken[place] = need
        taken[0] += need if fitter.host.gpus[place - 1].integrated else 0
    if not holds(room, tuple(taken)) or not reserve.lengthen(pick, context):
        return None
    fit = replace(pick.fit, taken=tuple(taken), needs=needs)
    return replace(pick, choice=replace(pick.choice, context=context), fit=fit)
