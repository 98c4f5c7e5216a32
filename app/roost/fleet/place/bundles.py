"""Which models go well together on one host, whatever its memory: bundles of offers for several slots, best first.

A bundle's needs are added up as if a host had one graphics processor. So the first bundle of the list that a host
really holds is the best for it, and hosts of all sizes share one list.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from roost.fleet.place.choices import ALIKE, Table
from roost.fleet.place.fits import GB, Offer, Site
from roost.fleet.place.search import Asked, Pick, State, try_offer
from roost.hosts.tiers import LEAST_TOKENS_PER_S

LOOKS = 400  # bundles that hold by their sums and are really tried


class Bundle(NamedTuple):
    """An offer, or none, for each of some slots; the first two negative, so that the best is the least."""

    served: int  # as in a score
    quality: int
    gpu: int  # bytes, and so the next
    host: int
    gpu_read: float  # the most that one of them reads a token, on a graphics processor
    host_read: float
    offers: tuple[Offer | None, ...]
    models: tuple[str, ...]


NOTHING = Bundle(0, 0, 0, 0, 0.0, 0.0, (), ())


class Bundles:
    """Makes each list once."""

    def __init__(self, table: Table) -> None:
        """Begin with none."""
        self.table = table
        self._lists: dict[tuple[object, ...], list[Bundle]] = {}

    def best(self, asked: Sequence[Asked], number: int, state: State) -> list[Pick]:
        """Return the best picks for automatic slots of one host."""
        best: list[Pick] = []
        best_value = (0, 0)  # negative, as in a bundle
        looks = 0
        site, room = self.table.sites[number], state.rooms[number]
        graphics = sum(room[1:])
        by_host, by_gpu = most_read(site)
        for bundle in self._list(asked, number):
            if bundle[:2] >= best_value or looks == LOOKS:
                break
            if bundle.host > room[0] or bundle.gpu > graphics:
                continue
            if bundle.host_read > by_host or bundle.gpu_read > by_gpu:
                continue
            looks += 1
            picks = self._really(asked, bundle, number, state)
            value = (-sum(p.asked.served for p in picks), -sum(p.quality for p in picks))
            if value < best_value:
                best, best_value = picks, value
        return best

    def _really(self, asked: Sequence[Asked], bundle: Bundle, number: int, state: State) -> list[Pick]:
        """Place a bundle's offers one after the other; an empty list if one does not fit."""
        room, models = state.rooms[number], state.models[number]
        domain = self.table.sites[number].domain
        picks: list[Pick] = []
        for one, offer in zip(asked, bundle.offers, strict=True):
            if offer is None:
                continue
            pick = try_offer(self.table, one, number, offer, state)
            if pick is None:
                break
            state.add(pick, domain)
            picks.append(pick)
        whole = len(picks) == sum(offer is not None for offer in bundle.offers)
        for pick in picks:
            state.domains[pick.asked.wish.slot, domain] -= 1
        state.rooms[number], state.models[number] = room, models
        return picks if whole else []

    def _list(self, asked: Sequence[Asked], number: int) -> list[Bundle]:
        offers = [self.table.offers(one.wish, number) for one in asked]
        key = (*map(id, offers), *(one.wish.optional for one in asked), *(one.served for one in asked))
        if key not in self._lists:
            self._lists[key] = bundles(asked, offers)
        return self._lists[key]


def most_read(site: Site) -> tuple[float, float]:
    """Return the bytes that a token may read on the processor and on the fastest graphics processor."""
    fastest = max((gpu.bandwidth_gbs for gpu in site.host.gpus), default=0.0)
    return site.host.bandwidth_gbs * GB / LEAST_TOKENS_PER_S, fastest * GB / LEAST_TOKENS_PER_S


def bundles(asked: Sequence[Asked], offers: Sequence[Sequence[Offer]]) -> list[Bundle]:
    """Return all bundles worth trying, the most roles first, then the best quality."""
    found = [NOTHING]
    for one, choices in zip(asked, offers, strict=True):
        longer = [bundle._replace(offers=(*bundle.offers, None)) for bundle in found]
        ready = [(offer, offer.candidate.model, sum(offer.needs.gpus), *_reads(offer)) for offer in choices]
        served = one.served
        for was in found:
            for offer, model, gpu, gpu_read, host_read in ready:
                again = model in was.models
                if again and one.wish.optional:
                    continue
                longer.append(
                    Bundle(
                        was.served - served,
                        was.quality - (0 if again else offer.quality),
                        was.gpu + gpu,
                        was.host + offer.needs.host,
                        max(was.gpu_read, gpu_read),
                        max(was.host_read, host_read),
                        (*was.offers, offer),
                        (*was.models, model),
                    )
                )
        found = lean(longer)
    return found


def _reads(offer: Offer) -> tuple[float, float]:
    return (offer.read, 0.0) if offer.graphics else (0.0, offer.read)


def lean(found: list[Bundle]) -> list[Bundle]:
    """Sort, and leave out what needs no less of anything than some that are better. Of equals the first stays first."""
    found.sort(key=itemgetter(0, 1, 2, 3))
    smallest: list[list[float]] = [[], [], [], []]  # of each need the least so far, negative: heaps of ALIKE
    kept = []
    for bundle in found:
        worth_it = False
        for least, need in zip(smallest, bundle[2:6], strict=True):
            if len(least) < ALIKE:
                heapq.heappush(least, -need)
                worth_it = True
            elif need < -least[0]:
                heapq.heapreplace(least, -need)
                worth_it = True
        if worth_it:
            kept.append(bundle)
    return kept
