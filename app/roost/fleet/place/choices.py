"""What could be tried for a wish on a host: every allowed model, best first, as far as it fits the empty host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from roost.fleet.place.fits import Estimates, Fit, Fitter, Room, room_of
from roost.fleet.place.wishes import Candidate, Wish
from roost.fleet.plan import GpuCapacity, HostCapacity
from roost.hosts.tiers import LEAST_TOKENS_PER_S

MIB = 1 << 20
STEP_BYTES = 64 * MIB  # memory is planned in such steps, so that hosts of one kind count as alike
# A model that was meant for a graphics processor and does not lie on it whole: so much less is its quality worth.
OFF_GPU_DIVISOR = 10
NOT_HERE_DIVISOR = 2  # of a model that is named without its quantisation, one that would have to be fetched
ALIKE = 4  # so many different models that are better in every respect make a choice needless


@dataclass(frozen=True)
class Choice:
    """One model with its first context, as it could be tried. `fit` is how it lies on the empty host."""

    candidate: Candidate
    context: int
    quality: int
    on_processor: bool
    partly: bool
    fit: Fit

    @property
    def speed(self) -> int:
        """Return tenths of tokens/s."""
        return round(self.fit.tokens_per_s * 10)


@dataclass(frozen=True)
class Site:
    """One host as the search sees it: `kind` is equal for hosts with the same hardware."""

    host: HostCapacity
    kind: HostCapacity
    fitter: Fitter


class Table:
    """The hosts in order of their names, and what could be tried where."""

    def __init__(self, hosts: Sequence[HostCapacity], candidates: Sequence[Candidate], estimates: Estimates) -> None:
        """Group hosts by hardware. The order in which hosts and models are given does not matter."""
        self.estimates = estimates
        self.candidates = tuple(sorted(candidates, key=lambda c: (c.model, c.rank, c.quantisation)))
        self.by_reference = {(c.model, c.quantisation): c for c in self.candidates}
        fitters: dict[HostCapacity, Fitter] = {}
        self.sites: list[Site] = []
        for host in sorted((in_steps(h) for h in hosts), key=lambda h: h.name):
            kind = replace(host, name="", domain="", gpus=tuple(replace(g, name="") for g in host.gpus))
            fitter = fitters.setdefault(kind, Fitter(kind, estimates))
            self.sites.append(Site(host, kind, fitter))
        self.numbers = {site.host.name: number for number, site in enumerate(self.sites)}
        self._choices: dict[tuple[HostCapacity, Wish], tuple[Choice, ...]] = {}

    def rooms(self) -> list[Room]:
        """Return the empty hosts' memory."""
        return [room_of(site.host) for site in self.sites]

    def choices(self, wish: Wish, number: int) -> tuple[Choice, ...]:
        """Return what could be tried for a wish on a host, best first."""
        site = self.sites[number]
        key = (site.kind, replace(wish, slot="", role=wish.lead, host="", copies=1, optional=False))
        if key not in self._choices:
            self._choices[key] = self._all(wish, site)
        return self._choices[key]

    def named(self, wish: Wish) -> list[Candidate]:
        """Return the candidates that a wish names, or all."""
        models = [c for c in self.candidates if wish.model in {"", c.model}]
        return [c for c in models if wish.quantisation in {"", c.quantisation}]

    def _all(self, wish: Wish, site: Site) -> tuple[Choice, ...]:
        found: list[Choice] = []
        graphics = bool(site.fitter.places(wish))
        for candidate in self.named(wish):
            quality = worth(candidate, wish, site.host.tier)
            if not quality:
                continue
            context = wish.first_context(candidate)
            ways = [(False, False, quality)]
            if graphics and wish.model:
                ways = [(False, True, quality)]
            elif graphics and wish.gpu == "auto":
                ways.append((True, False, max(1, quality // OFF_GPU_DIVISOR)))
            found += [
                choice
                for processor, partly, value in ways
                if (choice := self._choice(candidate, context, wish, site, processor, partly, value))
            ]
        found.sort(key=lambda c: (-c.quality, -c.speed, sum(c.fit.taken), c.candidate.reference))
        return tuple(needed(found))

    def _choice(
        self, candidate: Candidate, context: int, wish: Wish, site: Site, processor: bool, partly: bool, quality: int
    ) -> Choice | None:
        room = room_of(site.kind)
        fit = refit(site.fitter, candidate, context, wish, room, on_processor=processor, partly=partly)
        if fit is None or (not wish.model and fit.tokens_per_s < LEAST_TOKENS_PER_S):
            return None
        if fit.way == "partly":
            quality = max(1, quality // OFF_GPU_DIVISOR)
        return Choice(candidate, context, quality, processor, partly, fit)


def refit(
    fitter: Fitter, candidate: Candidate, context: int, wish: Wish, room: Room, *, on_processor: bool, partly: bool
) -> Fit | None:
    """Return how a choice fits what is left of a host."""
    settings = wish.settings(context)
    if on_processor:
        return fitter.on_processor(candidate, settings, room)
    return fitter.fit(candidate, settings, wish, room, partly=partly)


def worth(candidate: Candidate, wish: Wish, tier: str) -> int:
    """Return a candidate's quality for a wish; 0 where it may not be taken."""
    quality = candidate.quality(wish.lead)
    if not wish.model:
        return quality if candidate.available and candidate.allowed_on(tier) else 0
    named = max(1, quality)  # what is named is taken, whatever the catalogue says of the role
    return named if candidate.available else max(1, named // NOT_HERE_DIVISOR)


def needed(choices: Sequence[Choice]) -> list[Choice]:
    """Leave out what enough other models beat in every respect; `choices` are best first."""
    kept: list[Choice] = []
    for choice in choices:
        better = {
            other.candidate.model
            for other in kept
            if other.speed >= choice.speed
            and other.fit.places == choice.fit.places
            and all(a <= b for a, b in zip(other.fit.taken, choice.fit.taken, strict=True))
        }
        if len(better) < ALIKE:
            kept.append(choice)
    return kept


def in_steps(host: HostCapacity) -> HostCapacity:
    """Round a host's memory down and its speeds to two digits, so that hosts of one kind are equal."""
    gpus = sorted(host.gpus, key=lambda g: g.index)
    return replace(
        host,
        free_bytes=floor(host.free_bytes),
        cores=0,  # no decision depends on them
        bandwidth_gbs=two_digits(host.bandwidth_gbs),
        gpus=tuple(_gpu_in_steps(gpu) for gpu in gpus),
    )


def _gpu_in_steps(gpu: GpuCapacity) -> GpuCapacity:
    return replace(gpu, free_bytes=floor(gpu.free_bytes), bandwidth_gbs=two_digits(gpu.bandwidth_gbs))


def floor(count: int) -> int:
    """Round bytes down to a step."""
    return max(0, count) // STEP_BYTES * STEP_BYTES


def two_digits(value: float) -> float:
    """Round to two digits: 38.44 becomes 38."""
    return float(f"{value:.2g}")
