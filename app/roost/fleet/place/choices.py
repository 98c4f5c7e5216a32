"""What could be tried for a wish: every allowed model, best first, whatever the host; and the hosts themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from roost.fleet.place.fits import Estimates, Offer, Room, Site
from roost.fleet.place.wishes import Candidate, Wish
from roost.fleet.plan import HostCapacity
from roost.hosts.tiers import LEAST_TOKENS_PER_S

# A model that was meant for a graphics processor and does not lie on it whole: so much less is its quality worth.
OFF_GPU_DIVISOR = 10
NOT_HERE_DIVISOR = 2  # of a model that is named without its quantisation, one that would have to be fetched
ALIKE = 4  # so many different models that are better in every respect make an offer needless


class Table:
    """The hosts in order of their names, and what could be tried on them."""

    def __init__(self, hosts: Sequence[HostCapacity], candidates: Sequence[Candidate], estimates: Estimates) -> None:
        """Sort hosts and models: the order in which they are given does not matter."""
        self.estimates = estimates
        self.candidates = tuple(sorted(candidates, key=lambda c: (c.model, c.rank, c.quantisation)))
        self.by_reference = {(c.model, c.quantisation): c for c in self.candidates}
        self.sites = [Site(host, estimates) for host in sorted(hosts, key=lambda h: h.name)]
        self.numbers = {site.host.name: number for number, site in enumerate(self.sites)}
        self._apart = frozenset[str]().union(*(c.only for c in self.candidates))  # hosts with files that others lack
        self._offers: dict[tuple[object, ...], tuple[Offer, ...]] = {}
        self._kinds: dict[Wish, tuple[object, ...]] = {}

    def rooms(self) -> list[Room]:
        """Return the empty hosts' memory."""
        return [site.empty for site in self.sites]

    def offers(self, wish: Wish, number: int) -> tuple[Offer, ...]:
        """Return what could be tried for a wish on a host, best first; equal wishes share them."""
        site = self.sites[number]
        graphics = bool(site.places(wish))
        kind = self._kinds.get(wish)
        if kind is None:
            bare = replace(wish, slot="", role=wish.lead, host="", copies=1, optional=False, failover=False)
            kind = self._kinds.setdefault(wish, (bare,))
        name = site.host.name if site.host.name in self._apart else ""
        key = (*kind, site.host.tier, graphics, name)
        if key not in self._offers:
            self._offers[key] = self._all(wish, site.host.tier, graphics, name)
        return self._offers[key]

    def named(self, wish: Wish) -> list[Candidate]:
        """Return the candidates that a wish names, or all."""
        models = [c for c in self.candidates if wish.model in {"", c.model}]
        return [c for c in models if wish.quantisation in {"", c.quantisation}]

    def offer(
        self, candidate: Candidate, wish: Wish, context: int, quality: int, *, graphics: bool, partly: bool = False
    ) -> Offer | None:
        """Return a model with a context as an offer; None where nothing is known of its shape."""
        settings = wish.settings(context)
        layers = self.estimates.layers(candidate)
        needs = self.estimates.needs(candidate, settings, (layers,) if graphics else ()) if layers else None
        if needs is None:
            return None
        least = 0.0 if wish.model else LEAST_TOKENS_PER_S
        return Offer(candidate, settings, quality, graphics, partly, needs, least)

    def _all(self, wish: Wish, tier: str, graphics: bool, host: str) -> tuple[Offer, ...]:
        if isinstance(wish.gpu, tuple) and not graphics:
            return ()  # what the wish names is not here
        found: list[Offer | None] = []
        for candidate in self.named(wish):
            if not candidate.lies_on(host):
                continue
            quality = worth(candidate, wish, tier)
            context = wish.first_context(candidate)
            if not quality:
                continue
            partly = graphics and bool(wish.model)
            found.append(self.offer(candidate, wish, context, quality, graphics=graphics, partly=partly))
            if graphics and not wish.model and wish.gpu == "auto":
                found.append(self.offer(candidate, wish, context, off_graphics(quality), graphics=False))
        offers = [offer for offer in found if offer]
        offers.sort(key=lambda o: (-o.quality, o.read, o.candidate.reference))
        return tuple(needed(offers))


def off_graphics(quality: int) -> int:
    """Return what a quality is worth on the processor of a host with a graphics processor."""
    return max(1, quality // OFF_GPU_DIVISOR)


def worth(candidate: Candidate, wish: Wish, tier: str) -> int:
    """Return a candidate's quality for a wish; 0 where it may not be taken."""
    quality = candidate.quality(wish.lead)
    if not wish.model:
        return quality if candidate.available and candidate.allowed_on(tier) else 0
    named = max(1, quality)  # what is named is taken, whatever the catalogue says of the role
    return named if candidate.available else max(1, named // NOT_HERE_DIVISOR)


def needed(offers: Sequence[Offer]) -> list[Offer]:
    """Leave out what enough other models beat in every respect; `offers` are best first."""
    kept: list[Offer] = []
    for offer in offers:
        better = {
            other.candidate.model
            for other in kept
            if other.graphics == offer.graphics
            and other.read <= offer.read
            and other.needs.host <= offer.needs.host
            and (not offer.graphics or other.needs.gpus[0] <= offer.needs.gpus[0])
        }
        if len(better) < ALIKE:
            kept.append(offer)
    return kept
