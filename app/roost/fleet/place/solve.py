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
                return search.best
            turns = by_turns(self.table, ordered, numbers, state)
            return max(search.best, turns, key=lambda picks: score(picks, self.table))
        return by_turns(self.table, ordered, numbers, state)
