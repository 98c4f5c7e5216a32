"""The best choices for some wishes on some hosts: exactly where there are few of them, else the best first.

What is best is a `Score`; `docs/placement.md` says it in words.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from roost.fleet.place.choices import Choice, Table, refit
from roost.fleet.place.fits import Fit, Room, less, more
from roost.fleet.place.wishes import ROLES, Wish

EXACT_WISHES = 6
EXACT_HOSTS = 6
EXACT_NODES = 20_000  # tries after which the best found so far is taken

Score = tuple[tuple[int, ...], int, int, int]
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


@dataclass(frozen=True)
class Pick:
    """One server and its place; `quality` counts for the score, which may be less than the choice's."""

    asked: Asked
    number: int  # of the host
    choice: Choice
    fit: Fit
    quality: int


@dataclass
class State:
    """What is taken so far: rooms by host, models by host, domains by slot."""

    rooms: list[Room]
    models: list[list[str]]
    domains: dict[tuple[str, str], int] = field(default_factory=dict)

    def copy(self) -> State:
        """Return one that changes for itself."""
        return State(list(self.rooms), [list(m) for m in self.models], dict(self.domains))

    def add(self, pick: Pick, domain: str) -> None:
        """Take a pick's memory."""
        self.rooms[pick.number] = less(self.rooms[pick.number], pick.fit.taken)
        self.models[pick.number].append(pick.choice.candidate.model)
        slot = (pick.asked.wish.slot, domain)
        self.domains[slot] = self.domains.get(slot, 0) + 1

    def drop(self, pick: Pick, domain: str) -> None:
        """Give it back."""
        self.rooms[pick.number] = more(self.rooms[pick.number], pick.fit.taken)
        self.models[pick.number].remove(pick.choice.candidate.model)
        self.domains[pick.asked.wish.slot, domain] -= 1


def score(picks: Sequence[Pick], table: Table) -> Score:
    """Return what a set of picks is worth; the larger, the better.

    Servers by role, the most important first; quality; tenths of tokens/s; failure domains that slots are spread over.
    """
    served = [0] * (len(ROLES) + 1)
    for pick in picks:
        served[pick.asked.wish.order[0]] += 1
    spread = {(p.asked.wish.slot, domain_of(table, p.number)) for p in picks}
    return (
        tuple(served),
        sum(p.quality for p in picks),
        sum(round(p.fit.tokens_per_s * 10) for p in picks),
        len(spread),
    )


def domain_of(table: Table, number: int) -> str:
    """Return the failure domain of a host; one without is its own."""
    host = table.sites[number].host
    return host.domain or host.name


def solve(table: Table, asked: Sequence[Asked], numbers: Sequence[int], state: State) -> list[Pick]:
    """Return the best picks for what is asked on the hosts `numbers`; `state` stays as it is."""
    ordered = sorted(asked, key=lambda a: (not a.wish.model, a.wish.order, a.copy))
    if len(ordered) <= EXACT_WISHES and len(numbers) <= EXACT_HOSTS:
        search = _Exact(table, ordered, numbers, state.copy())
        search.descend(0)
        if search.nodes <= EXACT_NODES:
            return search.best
        return max(search.best, _by_turns(table, ordered, numbers, state), key=lambda p: score(p, table))
    return _by_turns(table, ordered, numbers, state)


def counted_quality(asked: Asked, choice: Choice, state: State, number: int) -> int | None:
    """Return what a choice counts: nothing for a model that the host serves already, unless it is named.

    None: an optional slot is not worth a second server of one model.
    """
    if asked.wish.model or choice.candidate.model not in state.models[number]:
        return choice.quality
    return None if asked.wish.optional else 0


class _Exact:
    """Depth first, the best choices first; what cannot beat the best found is left out."""

    def __init__(self, table: Table, asked: Sequence[Asked], numbers: Sequence[int], state: State) -> None:
        self.table, self.asked, self.state = table, asked, state
        self.options: list[list[tuple[int, Choice]]] = []
        for one in asked:
            here = [n for n in numbers if one.wish.host in {"", table.sites[n].host.name}]
            pairs = [(n, choice) for n in here for choice in table.choices(one.wish, n)]
            pairs.sort(key=lambda p: (-p[1].quality, -p[1].speed, p[0], p[1].candidate.reference))
            self.options.append(pairs)
        self.hopes = self._hopes()
        self.picks: list[Pick] = []
        self.best: list[Pick] = []
        self.best_score: Score | None = None
        self.nodes = 0

    def _hopes(self) -> list[Score]:
        """Return the most that what is asked from each place on can add: as if memory were not shared."""
        hopes: list[Score] = [((0,) * (len(ROLES) + 1), 0, 0, 0)]
        for one, pairs in zip(reversed(self.asked), reversed(self.options), strict=True):
            served, quality, speed, spread = hopes[-1]
            if pairs:
                rank = one.wish.order[0]
                served = (*served[:rank], served[rank] + 1, *served[rank + 1 :])
                quality += max(c.quality for _, c in pairs)
                speed += max(self._fastest(n, c) for n, c in pairs)
                spread += 1
            hopes.append((served, quality, speed, spread))
        return hopes[::-1]

    def _fastest(self, number: int, choice: Choice) -> int:
        """Return the speed on the fastest processor of a host: another one than on the empty host may be taken."""
        host = self.table.sites[number].host
        speeds = [host.bandwidth_gbs, *(gpu.bandwidth_gbs for gpu in host.gpus)]
        return round(choice.speed * max(speeds) / min(s for s in speeds if s)) if any(speeds) else 0

    def descend(self, depth: int) -> None:
        """Try all choices for what is asked at this place."""
        self.nodes += 1
        found = score(self.picks, self.table)
        if self.best_score is None or found > self.best_score:
            self.best, self.best_score = list(self.picks), found
        if depth == len(self.asked) or self.nodes > EXACT_NODES:
            return
        asked = self.asked[depth]
        for number, choice in self.options[depth]:
            if not self._hopeful(found, depth):
                return
            pick = try_choice(self.table, asked, number, choice, self.state)
            if pick is not None:
                domain = domain_of(self.table, number)
                self.state.add(pick, domain)
                self.picks.append(pick)
                self.descend(depth + 1)
                self.picks.pop()
                self.state.drop(pick, domain)
        if self._hopeful(found, depth + 1):
            self.descend(depth + 1)  # without this one

    def _hopeful(self, found: Score, depth: int) -> bool:
        hope = self.hopes[depth]
        most = (
            tuple(a + b for a, b in zip(found[0], hope[0], strict=True)),
            found[1] + hope[1],
            found[2] + hope[2],
            found[3] + hope[3],
        )
        return self.best_score is None or most > self.best_score


def try_choice(table: Table, asked: Asked, number: int, choice: Choice, state: State) -> Pick | None:
    """Return the pick that a choice becomes with what is left of a host, or None."""
    quality = counted_quality(asked, choice, state, number)
    if quality is None:
        return None
    fit = refit(
        table.sites[number].fitter, choice.candidate, choice.context, asked.wish, state.rooms[number],
        on_processor=choice.on_processor, partly=choice.partly,
    )  # fmt: skip
    return Pick(asked, number, choice, fit, quality) if fit else None


def _by_turns(table: Table, asked: Sequence[Asked], numbers: Sequence[int], state: State) -> list[Pick]:
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
        self.heaps: dict[str, list[tuple[tuple[float, ...], int, Pick]]] = {}

    def run(self, asked: Sequence[Asked]) -> list[Pick]:
        """Return the picks, in the order in which they were made."""
        found = []
        for one in asked:
            pick = self._next(one)
            if pick:
                self.state.add(pick, domain_of(self.table, pick.number))
                found.append(pick)
        return found

    def _next(self, asked: Asked) -> Pick | None:
        heap = self.heaps.get(asked.wish.slot + "@" + asked.wish.host)
        if heap is None:
            here = [n for n in self.numbers if asked.wish.host in {"", self.table.sites[n].host.name}]
            heap = [offer for n in here if (offer := self._offer(asked, n))]
            heapq.heapify(heap)
            self.heaps[asked.wish.slot + "@" + asked.wish.host] = heap
        while heap:
            key, number, _ = heapq.heappop(heap)
            offer = self._offer(asked, number)  # others may have taken memory since
            if offer is None:
                continue
            if offer[0] == key:
                heapq.heappush(heap, offer)
                return offer[2]
            heapq.heappush(heap, offer)
        return None

    def _offer(self, asked: Asked, number: int) -> tuple[tuple[float, ...], int, Pick] | None:
        choices = self.table.choices(asked.wish, number)
        if self.small:
            choices = tuple(sorted(choices, key=lambda c: (sum(c.fit.taken), -c.quality)))
        best: Pick | None = None
        for choice in choices:
            pick = try_choice(self.table, asked, number, choice, self.state)
            if pick and (best is None or pick.quality > best.quality):
                best = pick
            if best and best.quality:
                break
        if best is None:
            return None
        used = self.state.domains.get((asked.wish.slot, domain_of(self.table, number)), 0)
        speed = round(best.fit.tokens_per_s * 10)
        size = float(sum(best.fit.taken)) if self.small else 0.0
        return ((size, -best.quality, -speed, used, number), number, best)

    def upgrade(self, picks: Sequence[Pick]) -> list[Pick]:
        """Give each its best model on its host, with what it has and what is left there."""
        found = []
        for pick in picks:
            domain = domain_of(self.table, pick.number)
            self.state.drop(pick, domain)
            options = (
                try_choice(self.table, pick.asked, pick.number, choice, self.state)
                for choice in self.table.choices(pick.asked.wish, pick.number)
            )
            best = next((o for o in options if o and o.quality >= pick.quality), pick)
            self.state.add(best, domain)
            found.append(best)
        return found
