"""Which search answers what is asked: the cheapest that is exact, else one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from roost.fleet.place.bundles import Bundles
from roost.fleet.place.choices import Table
from roost.fleet.place.search import EXACT_NODES, Asked, Exact, Pick, State, by_turns, score

EXACT_WISHES = 6
EXACT_HOSTS = 6


class Solver:
    """Answers for one fleet."""

    def __init__(self, table: Table) -> None:
        """Prepare nothing."""
        self.table = table
        self.bundles = Bundles(table)

    def solve(self, asked: Sequence[Asked], numbers: Sequence[int], state: State) -> list[Pick]:
        """Return the best picks for what is asked on the hosts `numbers`; `state` is left as it was."""
        ordered = sorted(asked, key=lambda a: (not a.wish.model, a.wish.order, a.copy))
        if not ordered:
            return []
        if len(numbers) == 1 and not any(one.wish.model for one in ordered):
            return self.bundles.best(ordered, numbers[0], state)
        if len(ordered) <= EXACT_WISHES and len(numbers) <= EXACT_HOSTS:
            search = Exact(self.table, ordered, numbers, state)
            search.descend(0, (0, 0, 0, 0))
            if search.nodes <= EXACT_NODES:
                return search.best if len(search.best) == len(ordered) else self._fuller(search, numbers, state)
            turns = by_turns(self.table, ordered, numbers, state)
            return max(search.best, turns, key=lambda picks: score(picks, self.table))
        return by_turns(self.table, ordered, numbers, state)

    def _fuller(self, found: Exact, numbers: Sequence[int], state: State) -> list[Pick]:
        """Return what is found when the largest choose first, if that serves more.

        Each offer is tried in one way only, the best for itself, so that of several graphics processors a small server
        may take the only one that would hold a large one.
        """
        again = Exact(self.table, sorted(found.asked, key=lambda a: -self._size(a, numbers)), numbers, state)
        again.descend(0, (0, 0, 0, 0))
        return again.best if again.best_score[0] > found.best_score[0] else found.best

    def _size(self, asked: Asked, numbers: Sequence[int]) -> int:
        """Return the bytes that the best offer for a wish takes, on the host where it takes most."""
        best = (self.table.offers(asked.wish, n)[:1] for n in numbers if asked.wish.host in {"", self._name(n)})
        return max((o.needs.host + sum(o.needs.gpus) for offers in best for o in offers), default=0)

    def _name(self, number: int) -> str:
        return self.table.sites[number].host.name
