"""The search for the best offers for some wishes on some hosts: exact, or one after the other.

What is best is a `Score`; `docs/placement.md` says it in words.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from roost.fleet.place.choices import Table, off_graphics
from roost.fleet.place.fits import Fit, Offer, Room, less, more
from roost.fleet.place.wishes import ROLES, Wish

EXACT_NODES = 20_000  # tries after which the best found so far is taken
ROLE_BITS = 20  # of a score's first number, for each role

# Servers by role, ROLE_BITS each, the most important first; quality; tenths of tokens/s; failure domains by slot.
Score = tuple[int, int, int, int]
Key = tuple[str, str, int]  # slot, host if it is asked for there, copy: what a server is known by from plan to plan


@dataclass(frozen=True)
class Asked:
    """One model server that is asked for."""

    wish: Wish
    copy: int = 0

    @property
    def key(self) -> Key:
        """Return what it is known by from plan to plan."""
        return (self.wish.slot, self.wish.host, self.copy)

    @property
    def served(self) -> int:
        """Return what serving it adds to a score's first number."""
        return 1 << (ROLE_BITS * (len(ROLES) - self.wish.order[0]))


@dataclass(frozen=True)
class Pick:
    """One server and its place; `quality` counts for the score, which may be less than the offer's."""

    asked: Asked
    number: int  # of the host
    offer: Offer
    fit: Fit
    quality: int

    @property
    def context(self) -> int:
        """Return the tokens of context a request."""
        return self.offer.settings.context_size

    @property
    def speed(self) -> int:
        """Return tenths of tokens/s."""
        return int(self.fit.tokens_per_s * 10)


@dataclass
class State:
    """What is taken so far: rooms and models by host, servers by slot and domain."""

    rooms: list[Room]
    models: list[tuple[str, ...]]
    domains: dict[tuple[str, str], int] = field(default_factory=dict)

    def copy(self) -> State:
        """Return one that changes for itself."""
        return State(list(self.rooms), list(self.models), dict(self.domains))

    def add(self, pick: Pick, domain: str) -> None:
        """Take a pick's memory."""
        self.rooms[pick.number] = less(self.rooms[pick.number], pick.fit.taken)
        self.models[pick.number] += (pick.offer.candidate.model,)
        slot = (pick.asked.wish.slot, domain)
        self.domains[slot] = self.domains.get(slot, 0) + 1

    def drop(self, pick: Pick, domain: str) -> None:
        """Give it back."""
        self.rooms[pick.number] = more(self.rooms[pick.number], pick.fit.taken)
        models = list(self.models[pick.number])
        models.remove(pick.offer.candidate.model)
        self.models[pick.number] = tuple(models)
        self.domains[pick.asked.wish.slot, domain] -= 1


def score(picks: Sequence[Pick], table: Table) -> Score:
    """Return what a set of picks is worth; the larger, the better."""
    spread = {(p.asked.wish.slot, table.sites[p.number].domain) for p in picks}
    return (
        sum(p.asked.served for p in picks), sum(p.quality for p in picks), sum(p.speed for p in picks), len(spread)
    )  # fmt: skip


def try_offer(table: Table, asked: Asked, number: int, offer: Offer, state: State) -> Pick | None:
    """Return the pick that an offer becomes with what is left of a host, or None.

    A model that the host serves already counts nothing, unless it is named; for an optional slot it is none.
    """
    quality = offer.quality
    if not asked.wish.model and offer.candidate.model in state.models[number]:
        if asked.wish.optional:
            return None
        quality = 0
    fit = table.sites[number].fit(offer, asked.wish, state.rooms[number])
    if fit is None:
        return None
    return Pick(asked, number, offer, fit, off_graphics(quality) if fit.way == "partly" else quality)


class Exact:
    """Depth first, the best offers first; what cannot beat the best found is left out."""

    def __init__(self, table: Table, asked: Sequence[Asked], numbers: Sequence[int], state: State) -> None:
        self.table, self.asked, self.numbers, self.state = table, asked, numbers, state
        self.options = [self._options(one) for one in asked]
        self.picks: list[Pick] = []
        self.best: list[Pick] = []
        self.best_score: Score = (-1, 0, 0, 0)
        self.nodes = 0

    def _options(self, asked: Asked) -> list[tuple[int, float, int, Offer]]:
        """Return what could be tried, best first: (-quality, seconds a token, host, offer)."""
        found = []
        for number in self.numbers:
            site = self.table.sites[number]
            if asked.wish.host not in {"", site.host.name}:
                continue
            room = self.state.rooms[number]
            most = max(room[1:], default=0)
            for offer in self.table.offers(asked.wish, number):
                # what fits no single processor may still be split over several
                if len(room) > 2 or offer.partly or not offer.graphics or offer.needs.gpus[0] <= most:
                    seconds = offer.read / max(
                        site.host.bandwidth_gbs, *(g.bandwidth_gbs for g in site.host.gpus), 1e-3
                    )
                    found.append((-offer.quality, seconds, number, offer))
        return sorted(found, key=lambda o: (o[0], o[1], o[2], o[3].candidate.reference))

    def _hope(self, depth: int, so_far: Score) -> Score:
        """Return the most that can come of it: each of the rest takes the best that fits what is left now."""
        served, quality, speed, spread = so_far
        for asked, options in zip(self.asked[depth:], self.options[depth:], strict=True):
            best = next((o for o in options if self._may_fit(o[3], self.state.rooms[o[2]])), None)
            if best:
                served += asked.served
                quality -= best[0]
                speed += 1 << ROLE_BITS
                spread += 1
        return (served, quality, speed, spread)

    def _hopeful(self, depth: int, so_far: Score) -> bool:
        hope = self._hope(depth, so_far)
        # on one host the order of offers sees to speed; searching on for it alone would take many times as long
        return hope[:2] > self.best_score[:2] if len(self.numbers) == 1 else hope > self.best_score

    def _may_fit(self, offer: Offer, room: Room) -> bool:
        if offer.partly:
            return True
        return offer.needs.host <= room[0] and (not offer.graphics or offer.needs.gpus[0] <= sum(room[1:]))

    def descend(self, depth: int, so_far: Score) -> None:
        """Try everything for what is asked at this place."""
        self.nodes += 1
        if so_far > self.best_score:
            self.best, self.best_score = list(self.picks), so_far
        if depth == len(self.asked) or self.nodes > EXACT_NODES or not self._hopeful(depth, so_far):
            return
        asked = self.asked[depth]
        last = depth == len(self.asked) - 1
        served, quality, speed, spread = so_far
        for _, _, number, offer in self.options[depth]:
            if not self._may_fit(offer, self.state.rooms[number]):
                continue
            pick = try_offer(self.table, asked, number, offer, self.state)
            if pick is None:
                continue
            domain = self.table.sites[number].domain
            new = not self.state.domains.get((asked.wish.slot, domain), 0)
            self.state.add(pick, domain)
            self.picks.append(pick)
            self.descend(depth + 1, (served + asked.served, quality + pick.quality, speed + pick.speed, spread + new))
            self.picks.pop()
            self.state.drop(pick, domain)
            done = last and len(self.numbers) == 1 and pick.quality == offer.quality
            if done or self.nodes > EXACT_NODES:  # what follows is no better
                break
        self.descend(depth + 1, so_far)  # without this one


def by_turns(table: Table, asked: Sequence[Asked], numbers: Sequence[int], state: State) -> list[Pick]:
    """One after the other takes its best; if one goes without, all begin small and grow. The better of both."""
    best = _Turns(table, numbers, state.copy(), small=False).run(asked)
    if len(best) == len(asked):
        return best
    small = _Turns(table, numbers, state.copy(), small=True)
    grown = small.upgrade(small.run(asked))
    return max(best, grown, key=lambda picks: score(picks, table))


class _Turns:
    """One after the other chooses among all hosts; a heap for each slot has every host's best offer."""

    def __init__(self, table: Table, numbers: Sequence[int], state: State, *, small: bool) -> None:
        self.table, self.numbers, self.state, self.small = table, numbers, state, small
        self.heaps: dict[tuple[str, str], list[tuple[tuple[float, ...], int, int, Pick]]] = {}
        self.by_size: dict[int, tuple[Offer, ...]] = {}

    def run(self, asked: Sequence[Asked]) -> list[Pick]:
        """Return the picks, in the order in which they were made."""
        found = []
        for one in asked:
            pick = self._next(one)
            if pick:
                self.state.add(pick, self.table.sites[pick.number].domain)
                found.append(pick)
        return found

    def _next(self, asked: Asked) -> Pick | None:
        slot = (asked.wish.slot, asked.wish.host)
        heap = self.heaps.get(slot)
        if heap is None:
            here = [n for n in self.numbers if asked.wish.host in {"", self.table.sites[n].host.name}]
            heap = [offer for n in here if (offer := self._offer(asked, n))]
            heapq.heapify(heap)
            self.heaps[slot] = heap
        while heap:
            key, number, _, _ = heap[0]
            offer = self._offer(asked, number)  # others may have taken memory since
            if offer is None:
                heapq.heappop(heap)
                continue
            heapq.heapreplace(heap, offer)
            if offer[0] == key:
                return offer[3]
        return None

    def _offer(self, asked: Asked, number: int) -> tuple[tuple[float, ...], int, int, Pick] | None:
        """Return a host's best offer with its place in the order, or None."""
        offers = self.table.offers(asked.wish, number)
        best: Pick | None = None
        for offer in self._small_first(offers) if self.small else offers:
            pick = try_offer(self.table, asked, number, offer, self.state)
            if pick and (best is None or pick.quality > best.quality):
                best = pick
            if best and (best.quality >= offer.quality or self.small):
                break
        if best is None:
            return None
        used = self.state.domains.get((asked.wish.slot, self.table.sites[number].domain), 0)
        size = float(sum(best.fit.taken)) if self.small else 0.0
        return ((size, -best.quality, -best.speed, used, number), number, asked.copy, best)

    def _small_first(self, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
        if id(offers) not in self.by_size:
            ordered = sorted(offers, key=lambda o: (not o.graphics, o.needs.host + sum(o.needs.gpus), -o.quality))
            self.by_size[id(offers)] = tuple(ordered)
        return self.by_size[id(offers)]

    def upgrade(self, picks: Sequence[Pick]) -> list[Pick]:
        """Give each its best model on its host, with what it has and what is left there."""
        found = []
        for pick in picks:
            domain = self.table.sites[pick.number].domain
            self.state.drop(pick, domain)
            offers = self.table.offers(pick.asked.wish, pick.number)
            tried = (try_offer(self.table, pick.asked, pick.number, offer, self.state) for offer in offers)
            best = next((t for t in tried if t and t.quality >= pick.quality), pick)
            self.state.add(best, domain)
            found.append(best)
        return found
