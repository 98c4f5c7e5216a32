"""Whether and how a model server fits the memory that one host has left: on its graphics processors or its processor.

A room is what a host has left in bytes: first its own memory, then each graphics processor in the order of
`HostCapacity.gpus`. Memory of an integrated graphics processor is the machine's and is taken from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from roost.fleet.place.wishes import Candidate, Wish
from roost.fleet.plan import GpuCapacity, HostCapacity
from roost.models.footprint import HOST, DeviceBytes, Estimate, Estimator, LayerSplit, ServerSettings
from roost.ops.errors import RoostError

Room = tuple[int, ...]
Way = Literal["graphics", "split", "partly", "processor"]
GB = 10**9
# Layers are shared out in so many parts a graphics processor, not one by one: the estimate of a share is then the same
# for many hosts, and equal cards get equal shares.
PARTS = 8
SHIFTS = 3  # parts that may be handed on where the first sharing does not fit


@dataclass(frozen=True)
class Needs:
    """Bytes of one server with so many layers on each of its graphics processors; `read` are those a token reads."""

    host: int
    gpus: tuple[int, ...]
    host_read: float
    gpu_read: tuple[float, ...]
    estimate: Estimate


@dataclass(frozen=True)
class Offer:
    """A model with a context, before a host is known. `needs` are those on one graphics processor or, with `graphics`
    false, on the processor alone."""

    candidate: Candidate
    settings: ServerSettings
    quality: int
    graphics: bool
    partly: bool  # layers may stay with the processor
    needs: Needs
    least_tokens_per_s: float = 0.0

    @property
    def read(self) -> float:
        """Return the bytes that a token reads."""
        return self.needs.gpu_read[0] if self.graphics else self.needs.host_read


@dataclass(frozen=True)
class Fit:
    """One way in which a server fits: what it takes of the room, and on which graphics processors (places in the room)
    how many layers lie."""

    way: Way
    taken: Room
    places: tuple[int, ...]
    layers: tuple[int, ...]
    needs: Needs
    tokens_per_s: float


class Estimates:
    """Remembers what the estimator said: hosts share its answers, since they do not depend on the host."""

    def __init__(self, estimator: Estimator) -> None:
        """Remember answers of `estimator`; those that it refused as None."""
        self._estimator = estimator
        self._layers: dict[tuple[str, str], int] = {}
        self._needs: dict[tuple[str, str, ServerSettings, tuple[int, ...]], Needs | None] = {}

    def layers(self, candidate: Candidate) -> int:
        """Return how many layers can go to a graphics processor; 0 where nothing is known of the model."""
        key = (candidate.model, candidate.quantisation)
        if key not in self._layers:
            try:
                self._layers[key] = self._estimator.layers(*key)
            except RoostError:
                self._layers[key] = 0
        return self._layers[key]

    def needs(self, candidate: Candidate, settings: ServerSettings, layers: tuple[int, ...]) -> Needs | None:
        """Return what a server needs with so many layers on each graphics processor; None where nothing is known."""
        key = (candidate.model, candidate.quantisation, settings, layers)
        if key not in self._needs:
            self._needs[key] = self._ask(candidate, settings, layers)
        return self._needs[key]

    def _ask(self, candidate: Candidate, settings: ServerSettings, layers: tuple[int, ...]) -> Needs | None:
        split = LayerSplit(tuple(range(len(layers))), layers)
        try:
            found = self._estimator.estimate(candidate.model, candidate.quantisation, settings, split)
        except RoostError:
            return None
        return needs_of(found, tuple(f"GPU{i}" for i in range(len(layers))), candidate)


def needs_of(estimate: Estimate, gpus: Sequence[str], candidate: Candidate) -> Needs:
    """Return an estimate as needs, its graphics processors by their names in it."""
    host, found = estimate.on(HOST), [estimate.on(name) for name in gpus]
    share = candidate.active_share
    return Needs(
        host.total,
        tuple(g.total for g in found),
        host.weights * share,
        tuple(g.weights * share for g in found),
        replace(estimate, devices=(host, *(replace(g, device=f"GPU{i}") for i, g in enumerate(found)))),
    )


def room_of(host: HostCapacity) -> Room:
    """Return all that may be planned with on a host."""
    return (host.free_bytes, *(gpu.free_bytes for gpu in host.gpus))


def less(room: Room, taken: Room) -> Room:
    """Return what is left."""
    return tuple(a - b for a, b in zip(room, taken, strict=True))


def more(room: Room, taken: Room) -> Room:
    """Return the room with something given back."""
    return tuple(a + b for a, b in zip(room, taken, strict=True))


def holds(room: Room, taken: Room) -> bool:
    """Say whether all of it is there."""
    return all(a >= b for a, b in zip(room, taken, strict=True))


class Site:
    """One host, and how servers fit it."""

    def __init__(self, host: HostCapacity, estimates: Estimates) -> None:
        """Look at a host's graphics processors."""
        self.host = host
        self.estimates = estimates
        self.domain = host.domain or host.name
        self.empty = room_of(host)
        self._gbs = (host.bandwidth_gbs * GB, *(gpu.bandwidth_gbs * GB for gpu in host.gpus))
        devices: tuple[HostCapacity | GpuCapacity, ...] = (host, *host.gpus)
        self._least_gbs = tuple((one.bandwidth_least_gbs or one.bandwidth_gbs) * GB for one in devices)
        self._most_gbs = tuple((one.bandwidth_most_gbs or one.bandwidth_gbs) * GB for one in devices)
        self._shared = tuple(i for i, gpu in enumerate(host.gpus, 1) if gpu.integrated)
        self._places: dict[object, tuple[int, ...]] = {}

    def places(self, wish: Wish) -> tuple[int, ...]:
        """Return the places in a room of the graphics processors that a wish may use, the fastest first."""
        if wish.gpu not in self._places:
            found = list(range(1, len(self.empty))) if wish.gpu != "none" else []
            if isinstance(wish.gpu, tuple):
                found = [i for i in found if self.host.gpus[i - 1].index in wish.gpu]
            self._places[wish.gpu] = tuple(sorted(found, key=lambda i: (-self._gbs[i], i)))
        return self._places[wish.gpu]

    def together(self, places: Sequence[int]) -> list[int]:
        """Return those over which a model can be split."""
        return [i for i in places if not self.host.gpus[i - 1].alone]

    def fit(self, offer: Offer, wish: Wish, room: Room) -> Fit | None:
        """Return the best way in which an offer fits the room and is fast enough.

        Whole on one graphics processor, split over several, then in parts if it may.
        """
        needs = offer.needs
        if needs.host > room[0] and not offer.partly:
            return None
        if not offer.graphics:
            return self._fast(self.taking(needs, (), (), "processor", room), offer)
        places = self.places(wish)
        whole = self._one(needs, places, room)
        if whole:
            layers = self.estimates.layers(offer.candidate)
            fit = self._fast(self.taking(needs, (whole,), (layers,), "graphics", room), offer)
            if fit:
                return fit
        split = self._split(offer, places, room) if len(places) > 1 else None
        return split or (self._partly(offer, places, room) if offer.partly else None)

    @staticmethod
    def _fast(fit: Fit | None, offer: Offer) -> Fit | None:
        return fit if fit and fit.tokens_per_s >= offer.least_tokens_per_s else None

    def _one(self, needs: Needs, places: Sequence[int], room: Room) -> int:
        """Return the fastest place that holds all; of equally fast ones that with the least room. 0: none."""
        best = 0
        for place in places:
            if best and self._gbs[place] < self._gbs[best]:
                break
            shared = needs.gpus[0] if place in self._shared else 0
            fits = needs.gpus[0] <= room[place] and needs.host + shared <= room[0]
            if fits and (not best or room[place] < room[best]):
                best = place
        return best

    def _split(self, offer: Offer, places: Sequence[int], room: Room) -> Fit | None:
        """Split over as few as hold it, those with most memory left first."""
        free = sorted(self.together(places), key=lambda i: (-room[i], i))
        if sum(room[i] for i in free) < offer.needs.gpus[0]:
            return None
        layers = self.estimates.layers(offer.candidate)
        for count in range(2, len(free) + 1):
            if sum(room[i] for i in free[:count]) >= offer.needs.gpus[0]:
                used = tuple(sorted(free[:count]))
                fit = self._fast(self._balanced(offer, used, layers, room, "split"), offer)
                fit = fit or self._fast(self._fastest_full(offer, used, layers, room), offer)
                if fit:
                    return fit
        return None

    def _partly(self, offer: Offer, places: Sequence[int], room: Room) -> Fit | None:
        """Give the graphics processors as many layers as fit, at least one; the rest stays with the processor."""
        together = self.together(places)
        used = tuple(sorted(together)) or (max(places, key=lambda i: (room[i], -i)),)
        best: Fit | None = None
        least, most = 1, self.estimates.layers(offer.candidate) - 1
        while least <= most:
            middle = (least + most) // 2
            fit = self._balanced(offer, used, middle, room, "partly")
            if fit:
                best, least = fit, middle + 1
            else:
                most = middle - 1
        return best

    def _balanced(self, offer: Offer, places: tuple[int, ...], layers: int, room: Room, way: Way) -> Fit | None:
        """Share layers by free memory, then hand a part from where too much lies to where most is left."""
        count = layers if offer.partly else PARTS * len(places)
        parts = list(share(count, [room[i] for i in places])) if len(places) > 1 else [1]
        for _ in range(SHIFTS):
            used, shared = with_layers(places, share(layers, parts))
            needs = self.estimates.needs(offer.candidate, offer.settings, shared)
            if needs is None:
                return None
            fit = self.taking(needs, used, shared, way, room)
            if fit:
                return fit
            taken = dict(zip(used, needs.gpus, strict=True))
            left = [room[i] - taken.get(i, 0) for i in places]
            short, wide = left.index(min(left)), left.index(max(left))
            if left[short] >= 0 or left[wide] <= 0 or parts[short] < 2:
                return None
            parts[short] -= 1
            parts[wide] += 1
        return None

    def _fastest_full(self, offer: Offer, places: tuple[int, ...], layers: int, room: Room) -> Fit | None:
        """Fill the fastest processors and give the slower ones the rest."""
        count = PARTS * len(places)
        size = offer.needs.gpus[0] / count
        for spare in (0, 1):  # parts that a processor may have to leave to what each needs beside its layers
            left, parts = count, dict.fromkeys(places, 0)
            for place in sorted(places, key=lambda i: (-self._gbs[i], i)):
                parts[place] = max(0, min(left, int(room[place] / size) - spare))
                left -= parts[place]
            used, shared = with_layers(places, share(layers, [parts[place] for place in places]))
            needs = None if left else self.estimates.needs(offer.candidate, offer.settings, shared)
            fit = self.taking(needs, used, shared, "split", room) if needs else None
            if fit:
                return fit
        return None

    def taking(
        self, needs: Needs, places: tuple[int, ...], layers: tuple[int, ...], way: Way, room: Room
    ) -> Fit | None:
        """Return the fit that so many layers at these places are, or None where the room lacks memory."""
        taken = [needs.host] + [0] * (len(room) - 1)
        for place, need in zip(places, needs.gpus, strict=True):
            taken[place] = need
            if place in self._shared:
                taken[0] += need
        for have, need in zip(room, taken, strict=True):
            if need > have:
                return None
        return Fit(way, tuple(taken), places, layers, needs, self.speed(needs, places, way))

    def least_speed(self, fit: Fit) -> float:
        """Return the tokens/s of a fit if memory is as slow as it may be."""
        return self.speed(fit.needs, fit.places, fit.way, self._least_gbs)

    def most_speed(self, fit: Fit) -> float:
        """Return the tokens/s of a fit if memory is as fast as it may be."""
        return self.speed(fit.needs, fit.places, fit.way, self._most_gbs)

    def speed(self, needs: Needs, places: Sequence[int], way: Way, rates: Sequence[float] = ()) -> float:
        """Return tokens/s as memory allows them: each token reads the active weights once, device after device.

        Where all layers are on graphics processors, what stays in the machine's memory is the table of embeddings, of
        which a token reads one row. `rates` are bytes/s by device, else those that are reckoned with.
        """
        slow = needs.host_read if way in {"partly", "processor"} else 0.0
        rates = rates or self._gbs
        seconds = slow / rates[0] if slow else 0.0
        for place, read in zip(places, needs.gpu_read, strict=True):
            seconds += read / rates[place]
        return 1 / seconds if seconds else 0.0


def share(count: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Share `count` things by weights, the largest remainders first; equal ones by their place."""
    total = sum(max(0, w) for w in weights) or 1
    exact = [count * max(0, w) / total for w in weights]
    shared = [int(e) for e in exact]
    order = sorted(range(len(weights)), key=lambda i: (shared[i] - exact[i], i))
    for i in order[: count - sum(shared)]:
        shared[i] += 1
    return tuple(shared)


def with_layers(places: Sequence[int], layers: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places that have layers, and how many: a job is given no graphics processor that it does not use."""
    some = [(place, count) for place, count in zip(places, layers, strict=True) if count]
    return tuple(place for place, _ in some), tuple(count for _, count in some)


def named_estimate(fit: Fit, host: HostCapacity) -> Estimate:
    """Return the estimate with the host's own numbers of its graphics processors."""
    found = [fit.needs.estimate.on(HOST)]
    for number, place in enumerate(fit.places):
        device: DeviceBytes = fit.needs.estimate.on(f"GPU{number}")
        found.append(replace(device, device=f"GPU{host.gpus[place - 1].index}"))
    return Estimate(tuple(found), fit.needs.estimate.origin)


def split_of(fit: Fit, host: HostCapacity) -> LayerSplit:
    """Return which layers lie where, by the host's own numbers."""
    return LayerSplit(tuple(host.gpus[i - 1].index for i in fit.places), fit.layers)
