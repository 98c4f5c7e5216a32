"""What is done with the memory that is left: room kept on spare hosts, then longer contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from roost.fleet.place.choices import Table
from roost.fleet.place.fits import Offer, Room, less, more
from roost.fleet.place.search import Key, Pick, State
from roost.fleet.place.wishes import WISHED_CONTEXT

SPARES = 1  # hosts with room kept for a server that may run anywhere
SPARE_LOOKS = 32  # hosts that are looked at for it, those with most room first


class Reserve:
    """Room kept on spare hosts. Hosts fail one at a time, so what is kept for different ones may overlap."""

    def __init__(self, table: Table, state: State, picks: Sequence[Pick] = ()) -> None:
        """Keep nothing yet. `picks` are all that is placed."""
        self.table, self.state = table, state
        self._picks = picks
        self._vendors: dict[int, set[str]] = {}  # whose graphics processors the engine of a host computes on
        for pick in picks:
            gpus = table.sites[pick.number].host.gpus
            self._vendors.setdefault(pick.number, set()).update(gpus[place - 1].vendor for place in pick.fit.places)
        self._kept: dict[int, dict[int, dict[Key, Room]]] = {}  # spare -> failing host -> server -> room
        self._spares: dict[Key, list[int]] = {}

    def wanted(self, pick: Pick) -> bool:
        """Say whether a server is to have a spare: it may run elsewhere, and nobody else serves its model in its slot.

        What was asked for on each of several hosts is its own spare: where one is lost, the others answer.
        """
        wish = pick.asked.wish
        if not wish.host:
            return True
        model, domain = pick.offer.candidate.reference, self.table.sites[pick.number].domain
        return wish.failover and not any(
            other.asked.wish.slot == wish.slot
            and other.offer.candidate.reference == model
            and self.table.sites[other.number].domain != domain
            for other in self._picks
        )

    def why_none(self) -> str:
        """Say why a server has no spare."""
        return "; no spare: no other machine of its kind has room" if len(self.table.sites) > 1 else ""

    def _alike(self, pick: Pick, number: int) -> bool:
        """Say whether a host runs the server's job as it is: of the same kind, with the same engine, wired alike."""
        here, there = self.table.sites[pick.number].host, self.table.sites[number].host
        if here.kind != there.kind or self._vendors.get(pick.number, set()) != self._vendors.get(number, set()):
            return False
        wired = {gpu.index: (gpu.vendor, gpu.wiring) for gpu in there.gpus}
        return all(
            wired.get(gpu.index) == (gpu.vendor, gpu.wiring)
            for gpu in (here.gpus[place - 1] for place in pick.fit.places)
        )

    def room(self, number: int) -> Room:
        """Return what is left of a host beside what is kept there."""
        left = self.state.rooms[number]
        if number not in self._kept:
            return left
        kept = [self._sum(number, failing) for failing in self._kept.get(number, {})]
        most = tuple(max(entries) for entries in zip(*kept, strict=True)) if kept else (0,) * len(left)
        return less(left, most)

    def _sum(self, number: int, failing: int, without: Key | None = None) -> Room:
        kept = self._kept.get(number, {}).get(failing, {})
        total: Room = (0,) * len(self.state.rooms[number])
        for key, room in kept.items():
            total = more(total, room) if key != without else total
        return total

    def _offer(self, pick: Pick, context: int) -> Offer | None:
        wish, graphics = pick.asked.wish, bool(pick.fit.places)
        return self.table.offer(pick.offer.candidate, wish, context, pick.offer.quality, graphics=graphics)

    def _fit(self, pick: Pick, number: int, offer: Offer) -> Room | None:
        """Return what a server would take of a spare when its host fails, or None."""
        site = self.table.sites[number]
        host, own = site.host, self.table.sites[pick.number].host
        if not self._alike(pick, number) or not pick.offer.candidate.lies_on(host.name):
            return None
        room = self.state.rooms[number]
        if number in self._kept:
            room = less(room, self._sum(number, pick.number, pick.asked.key))
        indices = [own.gpus[place - 1].index for place in pick.fit.places]
        places = tuple(i for index in indices for i, gpu in enumerate(host.gpus, 1) if gpu.index == index)
        needs = self.table.estimates.needs(offer.candidate, offer.settings, pick.fit.layers)
        fit = site.taking(needs, places, pick.fit.layers, pick.fit.way, room) if needs else None
        return fit.taken if fit else None

    def find(self, pick: Pick, order: Sequence[int]) -> None:
        """Keep room for a server elsewhere, in another failure domain first."""
        offer = self._offer(pick, pick.context)
        if offer is None:
            return
        domain = self.table.sites[pick.number].domain
        looked = list(islice((n for n in order if n != pick.number), SPARE_LOOKS))
        looked.sort(key=lambda n: self.table.sites[n].domain == domain)
        found = self._spares.setdefault(pick.asked.key, [])
        for number in looked:
            if len(found) == SPARES:
                break
            taken = self._fit(pick, number, offer)
            if taken is not None:
                self._kept.setdefault(number, {}).setdefault(pick.number, {})[pick.asked.key] = taken
                found.append(number)

    def lengthen(self, pick: Pick, context: int) -> bool:
        """Keep more room for a server whose context grows; False, and nothing changes, where a spare lacks it."""
        key = pick.asked.key
        spares = self._spares.get(key, [])
        offer = self._offer(pick, context) if spares else None
        found = {number: self._fit(pick, number, offer) if offer else None for number in spares}
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
                domain = table.sites[pick.number].domain
                reserve.state.drop(pick, domain)
                reserve.state.add(longer, domain)
                current[asked.key] = longer
                still.append(asked)
        growing = still
    return [current[pick.asked.key] for pick in picks]


def longer_context(table: Table, pick: Pick, reserve: Reserve, limit: int) -> Pick | None:
    """Return the pick with twice the context, if it knows and holds so much."""
    candidate = pick.offer.candidate
    context = min(2 * pick.context, candidate.context_length, limit)
    if context <= pick.context:
        return None
    settings = pick.asked.wish.settings(context)
    needs = table.estimates.needs(candidate, settings, pick.fit.layers)
    room = more(reserve.room(pick.number), pick.fit.taken)
    fit = (
        table.sites[pick.number].taking(needs, pick.fit.places, pick.fit.layers, pick.fit.way, room) if needs else None
    )
    if fit is None or not reserve.lengthen(pick, context):
        return None
    return replace(pick, offer=replace(pick.offer, settings=settings), fit=fit)
