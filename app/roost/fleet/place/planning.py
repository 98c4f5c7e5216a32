"""One run of placement: group by group, what stays and what is new, then what to do with the memory that is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from roost.fleet.place import rpc
from roost.fleet.place.after import Reserve, grow
from roost.fleet.place.choices import Table
from roost.fleet.place.fits import Site, less, named_estimate, split_of
from roost.fleet.place.keep import kept_picks, keys_of, stood_in
from roost.fleet.place.search import Asked, Key, Pick, Score, State, score
from roost.fleet.place.solve import Solver
from roost.fleet.place.words import loss, lost_graphics, placed_line, reason, refusal
from roost.fleet.plan import Placed, Plan

# What runs is moved only where one more role is served, or quality or, at equal quality, speed becomes so many times
# better. Less speed is hardly felt, and figures of equal machines differ.
WORTH_A_MOVE = 1.1
SPEED_WORTH_A_MOVE = 1.25


@dataclass
class _Variant:
    """One way to serve a group of wishes: what stays, and what is new."""

    picks: list[Pick]
    kept: set[Key]  # what stays exactly as it is
    running: set[Key]  # what was there before
    score: Score


@dataclass(frozen=True)
class _Group:
    """What is decided together: wishes, the hosts they may use, and what is decided after them."""

    asked: list[Asked]
    numbers: list[int]
    later: Sequence[Asked] = ()


class Planning:
    """One run of `place`."""

    def __init__(self, table: Table, asked: Sequence[Asked], present: Plan) -> None:
        self.table, self.asked = table, asked
        self.solver = Solver(table)
        self.before = keys_of(asked, present.placed)
        self.running = keys_of(asked, stood_in(asked, present.placed, table.numbers))
        # after a host has left, first things first: what still runs is moved only to serve more, not to gain
        self.calm = all(placed.host in table.numbers for placed in present.placed)
        self.state = State(table.rooms(), [()] * len(table.sites))
        self.picks: list[Pick] = []
        self.kept: set[Key] = set()
        self.spread: dict[Key, Placed] = {}

    def run(self) -> Plan:
        """Decide group by group, then what to do with the rest of the memory."""
        self._keep_spread()
        for group in self._groups():
            chosen = self._group(group)
            for pick in chosen.picks:
                self.state.add(pick, self.table.sites[pick.number].domain)
            self.picks += chosen.picks
            self.kept |= chosen.kept
        self._split_over_hosts()
        return self._finish()

    def _groups(self) -> list[_Group]:
        """Return what is asked in the order in which it is served.

        Without wishes for anywhere each host is for itself. Else first what hosts must run, then what may run anywhere,
        then what fills hosts up.
        """
        anywhere = [a for a in self.asked if not a.wish.host and a.key not in self.spread]
        by_host: dict[str, list[Asked]] = {}
        for one in self.asked:
            if one.wish.host in self.table.numbers:
                by_host.setdefault(one.wish.host, []).append(one)
        here = [(self.table.numbers[host], group) for host, group in sorted(by_host.items())]
        if not anywhere:
            return [_Group(group, [number]) for number, group in here]
        fills = [one for _, group in here for one in group if one.wish.optional]
        return [
            *(_Group([a for a in group if not a.wish.optional], [n], [*anywhere, *fills]) for n, group in here),
            _Group(anywhere, list(range(len(self.table.sites))), fills),
            *(_Group([a for a in group if a.wish.optional], [n]) for n, group in here),
        ]

    def _group(self, group: _Group) -> _Variant:
        """Return the least change that is good enough: all stays, or with shorter contexts, or the group begins anew.

        What runs for later groups keeps its memory, unless this one could not serve a role otherwise.
        """
        asked, numbers = group.asked, group.numbers
        state = self.state.copy()
        kept = kept_picks(self.table, asked, self.running, state)
        near = [a for a in group.later if self._runs_on(a, numbers)]
        others = kept_picks(self.table, near, self.running, state)
        best = self._variant(kept, asked, numbers, others)
        for beside in (others, []) if others else (others,):
            if not kept and beside is others:
                continue  # that is what `best` is
            if kept and len(best.picks) < len(asked):
                shorter = self._variant([self._first_context(p) for p in kept], asked, numbers, beside)
                best = self._restored(shorter, kept) if shorter.score[0] > best.score[0] else best
            fresh = self._variant([], asked, numbers, beside)
            gain = self.calm and beside is others and worth_it(fresh, best, self.table.sites)
            good = gain or fresh.score[0] > best.score[0]
            best = self._fewer_moves(fresh, kept, group, beside) if good else best
        return best

    def _fewer_moves(self, fresh: _Variant, kept: list[Pick], group: _Group, beside: list[Pick]) -> _Variant:
        """Return the variant without moves that only came with others, where that serves as much and as well.

        What is held back leaves its place in the variant to others, who may gain nothing there: so it is asked again.
        After a host has left nothing gains enough to be moved.
        """
        best, stay, least = fresh, dict[Key, Pick](), self._counted(fresh)
        while True:
            now = {pick.asked.key: pick for pick in best.picks if pick.asked.key not in stay}
            held = [
                pick for pick in kept
                if (new := now.get(pick.asked.key)) and not (self.calm and gains(new, pick, self.table.sites))
            ]  # fmt: skip
            if not held:
                return best
            stay |= {pick.asked.key: pick for pick in held}
            fewer = self._variant(list(stay.values()), group.asked, group.numbers, beside)
            if self._counted(fewer) < least:
                shorter = [self._first_context(pick) for pick in stay.values()]
                shortened = self._variant(shorter, group.asked, group.numbers, beside)
                fewer = self._restored(shortened, list(stay.values()))
            if self._counted(fewer) < least:
                return best
            best = fewer

    def _counted(self, variant: _Variant) -> tuple[int, int]:
        """Return roles served and quality as the next run counts them.

        Of a model that a host has already, a server that did not name it counts nothing (`kept_pick`).
        """
        order = {one.key: place for place, one in enumerate(self.asked)}
        there = {(number, model) for number, models in enumerate(self.state.models) for model in models}
        quality = 0
        for pick in sorted(variant.picks, key=lambda pick: order[pick.asked.key]):
            at = (pick.number, pick.offer.candidate.model)
            quality += 0 if at in there and not pick.asked.wish.model else pick.quality
            there.add(at)
        return variant.score[0], quality

    def _runs_on(self, asked: Asked, numbers: Sequence[int]) -> bool:
        placed = self.running.get(asked.key)
        return placed is not None and (len(numbers) > 1 or self.table.numbers.get(placed.host) == numbers[0])

    def _restored(self, variant: _Variant, kept: list[Pick]) -> _Variant:
        """Give back their contexts to what runs on hosts to which nothing came."""
        keys = {pick.asked.key for pick in kept}
        busy = {pick.number for pick in variant.picks if pick.asked.key not in keys}
        calm = {pick.asked.key: pick for pick in kept if pick.number not in busy}
        return _Variant([calm.get(p.asked.key, p) for p in variant.picks], set(calm), keys, variant.score)

    def _first_context(self, pick: Pick) -> Pick:
        """Return what runs with the context that it began with."""
        wish, candidate = pick.asked.wish, pick.offer.candidate
        context = wish.first_context(candidate)
        settings = wish.settings(context)
        needs = self.table.estimates.needs(candidate, settings, pick.fit.layers)
        site, fit = self.table.sites[pick.number], None
        if needs and context < pick.context:
            fit = site.taking(needs, pick.fit.places, pick.fit.layers, pick.fit.way, site.empty)
        return replace(pick, offer=replace(pick.offer, settings=settings), fit=fit) if fit else pick

    def _variant(self, kept: list[Pick], asked: list[Asked], numbers: list[int], beside: list[Pick]) -> _Variant:
        state = self.state.copy()
        for pick in [*kept, *beside]:
            state.add(pick, self.table.sites[pick.number].domain)
        keys = {pick.asked.key for pick in kept}
        picks = [*kept, *self.solver.solve([a for a in asked if a.key not in keys], numbers, state)]
        return _Variant(picks, keys, keys, score(picks, self.table))

    def _keep_spread(self) -> None:
        """Keep what runs over several hosts while all of them hold it, and no single one would."""
        for one in self.asked:
            placed = self.running.get(one.key)
            if not placed or not placed.rpc or self._fits_one(one):
                continue
            named = (one.wish.model, one.wish.quantisation or placed.quantisation) == (
                placed.model,
                placed.quantisation,
            )
            taken = rpc.still_holds(self.table, placed, self.state.rooms) if named else None
            if taken is not None and placed.settings == one.wish.settings(placed.settings.context_size):
                self._take_spread(one, rpc.Spread(placed, taken))
                self.kept.add(one.key)

    def _fits_one(self, asked: Asked) -> bool:
        return any(
            site.fit(offer, asked.wish, site.empty)
            for number, site in enumerate(self.table.sites)
            for offer in self.table.offers(asked.wish, number)
        )

    def _split_over_hosts(self) -> None:
        """Split a named model over hosts where no single one holds it."""
        served = {pick.asked.key for pick in self.picks} | set(self.spread)
        for one in self.asked:
            if (
                one.key in served
                or one.wish.host
                or not one.wish.model
                or one.wish.gpu != "auto"
                or self._fits_one(one)
            ):
                continue
            found = rpc.over_hosts(self.table, one, self.state.rooms)
            if found:
                self._take_spread(one, found)

    def _take_spread(self, asked: Asked, found: rpc.Spread) -> None:
        self.spread[asked.key] = found.placed
        for number, taken in found.taken.items():
            self.state.rooms[number] = less(self.state.rooms[number], taken)

    def _finish(self) -> Plan:
        reserve = Reserve(self.table, self.state, self.picks)
        roomy = sorted(range(len(self.table.sites)), key=lambda n: (-sum(self.state.rooms[n]), n))
        for pick in sorted(self.picks, key=lambda p: (p.asked.wish.order, p.asked.copy)):
            if reserve.wanted(pick):
                before = self.running.get(pick.asked.key)
                first = [self.table.numbers[h] for h in (before.spares if before else ()) if h in self.table.numbers]
                reserve.find(pick, first + [n for n in roomy if n not in first])
        grown = {pick.asked.key: pick for pick in grow(self.table, self.picks, reserve, self._limits())}
        placed, refused, lines = [], [], []
        for one in self.asked:
            if one.key in self.spread:
                found = self.spread[one.key]
            elif one.key in grown:
                found = self._placed(grown[one.key], reserve.names(one.key))
            elif one.wish.optional:
                lines.append(self._merged(one, grown))
                continue
            else:
                refused.append(refusal(one, self.table, self.state.rooms))
                continue
            placed.append(found)
            alone = one.key in grown and reserve.wanted(grown[one.key]) and not found.spares
            lines.append(placed_line(found, self._note(one, found)) + (reserve.why_none() if alone else ""))
        lines += [f"{r.slot}: not placed: {r.reason}. {r.remedy}" for r in refused]
        return Plan(tuple(placed), tuple(refused), tuple(lines))

    def _limits(self) -> dict[Key, int]:
        """Return how far contexts of what runs may grow: as far as they were, and not at all where all else stays."""
        return {
            pick.asked.key: pick.context if pick.asked.key in self.kept else before.settings.context_size
            for pick in self.picks
            if (before := self.running.get(pick.asked.key))
            and (before.host, before.model) == (self.table.sites[pick.number].host.name, pick.offer.candidate.model)
        }

    def _placed(self, pick: Pick, spares: tuple[str, ...]) -> Placed:
        site = self.table.sites[pick.number]
        before = self.running.get(pick.asked.key)
        if pick.asked.key in self.kept and before:
            slowed = before.slowed and pick.asked.wish.gpu != "none"
            return replace(before, estimate=named_estimate(pick.fit, site.host), spares=spares, slowed=slowed)
        lost = lost_graphics(before, pick, site.host) if before else ""
        return Placed(
            slot=pick.asked.wish.slot,
            model=pick.offer.candidate.model,
            quantisation=pick.offer.candidate.quantisation,
            host=site.host.name,
            settings=pick.asked.wish.settings(pick.context),
            split=split_of(pick.fit, site.host),
            estimate=named_estimate(pick.fit, site.host),
            reason=reason(pick, self.table) + lost,
            spares=spares,
            copy=pick.asked.copy,
            slowed=loss(pick) or bool(lost),
            tokens_per_s=round(pick.fit.tokens_per_s, 1),
        )

    def _merged(self, asked: Asked, grown: dict[Key, Pick]) -> str:
        """Say that another slot of the host does an optional one's work."""
        host = asked.wish.host
        others = [p.asked.wish.slot for p in grown.values() if p.asked.wish.host == host]
        by = f"{others[0]} does its work" if others else "nothing does its work"
        return f"{asked.wish.slot}: no model of its own on {host}, since no further one is allowed and fits; {by}"

    def _note(self, asked: Asked, found: Placed) -> str:
        """Say what happened to what ran."""
        before = self.before.get(asked.key)
        if before is None:
            return ""
        if before.host not in self.table.numbers:
            return f"moved, for its host {before.host} is gone; "
        if asked.key in self.kept:
            return "stays; "
        if (before.host, before.model, before.quantisation) == (found.host, found.model, found.quantisation):
            return "stays with new settings; "
        return f"instead of {before.model}:{before.quantisation} on {before.host}; "


def worth_it(new: _Variant, old: _Variant, sites: Sequence[Site]) -> bool:
    """Say whether a new plan is so much better that what runs may be moved.

    More speed counts for what runs only: that others are fast beside it is no reason to move it. What would move counts
    as fast as it may be where it is, and as slow as it may be where it would go: figures of busy machines, and guesses,
    are no reason either.
    """
    if new.score[0] != old.score[0]:
        return new.score[0] > old.score[0]
    if new.score[1] > old.score[1] * WORTH_A_MOVE:
        return True
    then = {pick.asked.key: pick for pick in old.picks if pick.asked.key in old.running}
    now = {pick.asked.key: pick for pick in new.picks if pick.asked.key in old.running}
    stay = {key for key in then.keys() & now.keys() if _same_place(now[key], then[key])}
    was = sum(p.fit.tokens_per_s if key in stay else sites[p.number].most_speed(p.fit) for key, p in then.items())
    becomes = sum(p.fit.tokens_per_s if key in stay else sites[p.number].least_speed(p.fit) for key, p in now.items())
    as_good = new.score[1] >= old.score[1] and _quality(now.values()) >= _quality(then.values())
    return as_good and becomes > was * SPEED_WORTH_A_MOVE


def gains(new: Pick, old: Pick, sites: Sequence[Site]) -> bool:
    """Say whether a server that runs is itself better off in a new plan; speeds as in `worth_it`."""
    if new.quality != old.quality:
        return new.quality > old.quality
    if _same_place(new, old):  # more layers there: how wrong the figure is does not matter
        return new.fit.tokens_per_s > old.fit.tokens_per_s * SPEED_WORTH_A_MOVE
    most, least = sites[old.number].most_speed(old.fit), sites[new.number].least_speed(new.fit)
    return least > most * SPEED_WORTH_A_MOVE


def _same_place(new: Pick, old: Pick) -> bool:
    return (new.number, new.fit.places) == (old.number, old.fit.places)


def _quality(picks: Iterable[Pick]) -> int:
    return sum(pick.quality for pick in picks)
