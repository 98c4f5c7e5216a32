"""What runs where: hosts, models and wishes in, a plan out. A pure function; `docs/placement.md` has the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from roost.fleet.place import rpc
from roost.fleet.place.after import Reserve, grow
from roost.fleet.place.choices import Table
from roost.fleet.place.fits import Estimates, less, named_estimate, split_of
from roost.fleet.place.keep import kept_picks, keys_of
from roost.fleet.place.search import Asked, Key, Pick, Score, State, domain_of, score, solve
from roost.fleet.place.wishes import Candidate, Wish, shape_of
from roost.fleet.place.words import placed_line, reason, refusal
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.models.footprint import Estimator

__all__ = ["WORTH_A_MOVE", "Candidate", "Wish", "place", "shape_of"]

# What runs is moved only where quality, or at equal quality speed, becomes so many times better; or a role more served.
WORTH_A_MOVE = 1.1


def place(
    hosts: Sequence[HostCapacity],
    candidates: Sequence[Candidate],
    wishes: Sequence[Wish],
    estimator: Estimator,
    present: Plan | None = None,
) -> Plan:
    """Return the plan. It depends neither on the order of hosts, models and wishes nor on anything outside.

    `present` is what runs: it stays as far as it is still wished, still fits, and nothing much better is possible.

    Raises:
        ValueError: two hosts, models or wishes have the same name.
    """
    _distinct("hosts", [h.name for h in hosts])
    _distinct("models", [c.reference for c in candidates])
    asked = [Asked(w, copy) for w in sorted(wishes, key=lambda w: w.order) for copy in range(max(1, w.copies))]
    _distinct("wishes", [str(a.key) for a in asked])
    table = Table(hosts, candidates, Estimates(estimator))
    return _Planning(table, asked, present or Plan(())).run()


def _distinct(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{what} named twice: {', '.join(twice)}")


@dataclass
class _Variant:
    """One way to serve a group of wishes: what stays, and what is new."""

    picks: list[Pick]
    kept: set[Key]  # what stays exactly as it is
    running: set[Key]  # what was there before
    score: Score


class _Planning:
    """One run of `place`."""

    def __init__(self, table: Table, asked: Sequence[Asked], present: Plan) -> None:
        self.table, self.asked = table, asked
        self.running = keys_of(asked, present.placed)
        self.state = State(table.rooms(), [[] for _ in table.sites])
        self.picks: list[Pick] = []
        self.kept: set[Key] = set()
        self.spread: dict[Key, Placed] = {}

    def run(self) -> Plan:
        """Decide group by group, then what to do with the rest of the memory."""
        self._keep_spread()
        groups = self._groups()
        for number, (group, numbers) in enumerate(groups):
            later = [one for others, _ in groups[number + 1 :] for one in others if one.key in self.running]
            chosen = self._group(group, numbers, later)
            for pick in chosen.picks:
                self.state.add(pick, domain_of(self.table, pick.number))
            self.picks += chosen.picks
            self.kept |= chosen.kept
        self._split_over_hosts()
        return self._finish()

    def _groups(self) -> list[tuple[list[Asked], list[int]]]:
        """Return wishes with the hosts they may use, in the order in which they are served.

        Without wishes for anywhere each host is for itself. Else first what hosts must run, then what may run anywhere,
        then what fills hosts up.
        """
        anywhere = [a for a in self.asked if not a.wish.host and a.key not in self.spread]
        everything = list(range(len(self.table.sites)))
        by_host: dict[str, list[Asked]] = {}
        for one in self.asked:
            if one.wish.host in self.table.numbers:
                by_host.setdefault(one.wish.host, []).append(one)
        if not anywhere:
            return [(group, [self.table.numbers[host]]) for host, group in sorted(by_host.items())]
        musts = {host: [a for a in group if not a.wish.optional] for host, group in by_host.items()}
        fills = {host: [a for a in group if a.wish.optional] for host, group in by_host.items()}
        return [
            *((group, [self.table.numbers[host]]) for host, group in sorted(musts.items()) if group),
            (anywhere, everything),
            *((group, [self.table.numbers[host]]) for host, group in sorted(fills.items()) if group),
        ]

    def _group(self, asked: list[Asked], numbers: list[int], later: list[Asked]) -> _Variant:
        """Return the least change that is good enough: all stays, or with shorter contexts, or the group begins anew.

        What runs for `later` groups keeps its memory, unless this one could not serve a role otherwise.
        """
        state = self.state.copy()
        kept = kept_picks(self.table, asked, self.running, state)
        others = kept_picks(self.table, later, self.running, state)
        best = self._variant(kept, asked, numbers, others)
        for beside in (others, []) if others else (others,):
            if kept and len(best.picks) < len(asked):
                shorter = self._variant([self._first_context(p) for p in kept], asked, numbers, beside)
                best = self._restored(shorter, kept) if shorter.score[0] > best.score[0] else best
            fresh = self._variant([], asked, numbers, beside)
            good = worth_it(fresh, best) if beside is others else fresh.score[0] > best.score[0]
            best = fresh if good else best
        return best

    def _restored(self, variant: _Variant, kept: list[Pick]) -> _Variant:
        """Give back their contexts to what runs on hosts to which nothing came."""
        keys = {pick.asked.key for pick in kept}
        busy = {pick.number for pick in variant.picks if pick.asked.key not in keys}
        calm = {pick.asked.key: pick for pick in kept if pick.number not in busy}
        return _Variant([calm.get(p.asked.key, p) for p in variant.picks], set(calm), keys, variant.score)

    def _first_context(self, pick: Pick) -> Pick:
        wish, candidate = pick.asked.wish, pick.choice.candidate
        context = wish.first_context(candidate)
        needs = self.table.estimates.needs(candidate, wish.settings(context), pick.fit.layers)
        if needs is None or context >= pick.choice.context:
            return pick
        taken = [needs.host] + [0] * (len(pick.fit.taken) - 1)
        gpus = self.table.sites[pick.number].host.gpus
        for at, need in zip(pick.fit.places, needs.gpus, strict=True):
            taken[at] = need
            taken[0] += need if gpus[at - 1].integrated else 0
        fit = replace(pick.fit, taken=tuple(taken), needs=needs)
        return replace(pick, choice=replace(pick.choice, context=context), fit=fit)

    def _variant(self, kept: list[Pick], asked: list[Asked], numbers: list[int], beside: list[Pick]) -> _Variant:
        state = self.state.copy()
        for pick in [*kept, *beside]:
            state.add(pick, domain_of(self.table, pick.number))
        keys = {pick.asked.key for pick in kept}
        picks = [*kept, *solve(self.table, [a for a in asked if a.key not in keys], numbers, state)]
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
        return any(self.table.choices(asked.wish, n) for n in range(len(self.table.sites)))

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
        reserve = Reserve(self.table, self.state)
        roomy = sorted(range(len(self.table.sites)), key=lambda n: (-sum(self.state.rooms[n]), n))
        for pick in sorted(self.picks, key=lambda p: (p.asked.wish.order, p.asked.copy)):
            if not pick.asked.wish.host:
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
            lines.append(placed_line(found, self._note(one, found)))
        lines += [f"{r.slot}: not placed: {r.reason}. {r.remedy}" for r in refused]
        return Plan(tuple(placed), tuple(refused), tuple(lines))

    def _limits(self) -> dict[Key, int]:
        """Return how far contexts of what runs may grow: as far as they were, and not at all where all else stays."""
        return {
            pick.asked.key: pick.choice.context if pick.asked.key in self.kept else before.settings.context_size
            for pick in self.picks
            if (before := self.running.get(pick.asked.key))
            and (before.host, before.model) == (self.table.sites[pick.number].host.name, pick.choice.candidate.model)
        }

    def _placed(self, pick: Pick, spares: tuple[str, ...]) -> Placed:
        site = self.table.sites[pick.number]
        before = self.running.get(pick.asked.key)
        if pick.asked.key in self.kept and before:
            return replace(before, estimate=named_estimate(pick.fit, site.host), spares=spares)
        return Placed(
            slot=pick.asked.wish.slot,
            model=pick.choice.candidate.model,
            quantisation=pick.choice.candidate.quantisation,
            host=site.host.name,
            settings=pick.asked.wish.settings(pick.choice.context),
            split=split_of(pick.fit, site.host),
            estimate=named_estimate(pick.fit, site.host),
            reason=reason(pick, self.table),
            spares=spares,
            copy=pick.asked.copy,
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
        before = self.running.get(asked.key)
        if before is None:
            return ""
        if asked.key in self.kept:
            return "stays; "
        if before.host not in self.table.numbers:
            return f"moved, for its host {before.host} is gone; "
        if (before.host, before.model, before.quantisation) == (found.host, found.model, found.quantisation):
            return "stays with new settings; "
        return f"instead of {before.model}:{before.quantisation} on {before.host}; "


def worth_it(new: _Variant, old: _Variant) -> bool:
    """Say whether a new plan is so much better that what runs may be moved.

    More speed counts for what runs only: that others are fast beside it is no reason to move it.
    """
    if new.score[0] != old.score[0]:
        return new.score[0] > old.score[0]
    if new.score[1] > old.score[1] * WORTH_A_MOVE:
        return True
    (new_quality, new_speed), (old_quality, old_speed) = _of(new, old.running), _of(old, old.running)
    as_good = new.score[1] >= old.score[1] and new_quality >= old_quality
    return as_good and new_speed > old_speed * WORTH_A_MOVE


def _of(variant: _Variant, keys: set[Key]) -> tuple[int, float]:
    picks = [pick for pick in variant.picks if pick.asked.key in keys]
    return sum(pick.quality for pick in picks), sum(pick.fit.tokens_per_s for pick in picks)
