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


@dataclass(frozen=True)
class Needs:
    """Bytes of one server with so many layers on each of its graphics processors; weights are those a token reads."""

    host: int
    gpus: tuple[int, ...]
    host_weights: float
    gpu_weights: tuple[float, ...]
    estimate: Estimate


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
        host, gpus = found.on(HOST), [found.on(f"GPU{i}") for i in range(len(layers))]
        share = candidate.active_share
        return Needs(
            host.total,
            tuple(g.total for g in gpus),
            host.weights * share,
            tuple(g.weights * share for g in gpus),
            found,
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


@dataclass
class Fitter:
    """Fits servers to one kind of hardware; answers are remembered by room, since many hosts are alike."""

    host: HostCapacity
    estimates: Estimates

    def __post_init__(self) -> None:
        """Begin with nothing remembered."""
        self._found: dict[tuple[str, ServerSettings, object, bool, Room], Fit | None] = {}

    def fit(
        self, candidate: Candidate, settings: ServerSettings, wish: Wish, room: Room, *, partly: bool
    ) -> Fit | None:
        """Return the best way in which the server fits the room; `partly`: layers may stay with the processor."""
        key = (candidate.reference, settings, wish.gpu, partly, room)
        if key not in self._found:
            self._found[key] = self._fit(candidate, settings, wish, room, partly=partly)
        return self._found[key]

    def places(self, wish: Wish) -> tuple[int, ...]:
        """Return the places in a room of the graphics processors that a wish may use."""
        if wish.gpu == "none":
            return ()
        allowed = None if wish.gpu == "auto" else set(wish.gpu)
        return tuple(i for i, gpu in enumerate(self.host.gpus, 1) if allowed is None or gpu.index in allowed)

    def _fit(
        self, candidate: Candidate, settings: ServerSettings, wish: Wish, room: Room, *, partly: bool
    ) -> Fit | None:
        places = self.places(wish)
        if not places:
            named = wish.gpu not in {"auto", "none"}  # processors that are not here: the wish cannot be kept to
            return None if named else self.on_processor(candidate, settings, room)
        layers = self.estimates.layers(candidate)
        if not layers:
            return None
        return (
            self._on_one(candidate, settings, room, places, layers)
            or self._on_several(candidate, settings, room, places, layers)
            or (self._partly(candidate, settings, room, places, layers) if partly else None)
        )

    def on_processor(self, candidate: Candidate, settings: ServerSettings, room: Room) -> Fit | None:
        """Return how the server fits the machine's own memory."""
        return self._take(candidate, settings, room, (), (), "processor")

    def _on_one(
        self, candidate: Candidate, settings: ServerSettings, room: Room, places: Sequence[int], layers: int
    ) -> Fit | None:
        """Fill up: of the fast enough ones, that with the least memory left."""
        for place in sorted(places, key=lambda i: (-self._gpu(i).bandwidth_gbs, room[i], i)):
            fit = self._take(candidate, settings, room, (place,), (layers,), "graphics")
            if fit:
                return fit
        return None

    def _on_several(
        self, candidate: Candidate, settings: ServerSettings, room: Room, places: Sequence[int], layers: int
    ) -> Fit | None:
        """Split over as few as hold it, those with most memory left first."""
        free = sorted((i for i in places if not self._gpu(i).alone), key=lambda i: (-room[i], i))
        for count in range(2, len(free) + 1):
            fit = self._balanced(candidate, settings, room, tuple(sorted(free[:count])), layers, "split")
            if fit:
                return fit
        return None

    def _partly(
        self, candidate: Candidate, settings: ServerSettings, room: Room, places: Sequence[int], layers: int
    ) -> Fit | None:
        """Give the graphics processors as many layers as fit, at least one; the rest stays with the processor."""
        together = tuple(i for i in places if not self._gpu(i).alone)
        used = together or (max(places, key=lambda i: (room[i], -i)),)
        best: Fit | None = None
        least, most = 1, layers - 1
        while least <= most:
            middle = (least + most) // 2
            fit = self._balanced(candidate, settings, room, used, middle, "partly")
            if fit:
                best, least = fit, middle + 1
            else:
                most = middle - 1
        return best

    def _balanced(
        self, candidate: Candidate, settings: ServerSettings, room: Room, places: tuple[int, ...], layers: int, way: Way
    ) -> Fit | None:
        """Share layers by free memory, then hand single ones from where too many lie to where most is left."""
        shared = list(share(layers, [room[i] for i in places]))
        for _ in range(layers):
            needs = self.estimates.needs(candidate, settings, tuple(shared))
            if needs is None:
                return None
            left = [room[i] - need for i, need in zip(places, needs.gpus, strict=True)]
            short, wide = min(range(len(left)), key=left.__getitem__), max(range(len(left)), key=left.__getitem__)
            if left[short] >= 0 or left[wide] <= 0 or not shared[short]:
                break
            shared[short] -= 1
            shared[wide] += 1
        return self._take(candidate, settings, room, places, tuple(shared), way)

    def _take(
        self,
        candidate: Candidate,
        settings: ServerSettings,
        room: Room,
        places: tuple[int, ...],
        layers: tuple[int, ...],
        way: Way,
    ) -> Fit | None:
        needs = self.estimates.needs(candidate, settings, layers)
        if needs is None:
            return None
        taken = [needs.host] + [0] * len(self.host.gpus)
        for place, need in zip(places, needs.gpus, strict=True):
            taken[place] = need
            taken[0] += need if self._gpu(place).integrated else 0
        fit = Fit(way, tuple(taken), places, layers, needs, self.speed(needs, places, way))
        return fit if holds(room, fit.taken) else None

    def speed(self, needs: Needs, places: Sequence[int], way: Way) -> float:
        """Return tokens/s as memory allows them: each token reads the active weights once, device after device.

        Where all layers are on graphics processors, what stays in the machine's memory is the table of embeddings, of
        which a token reads one row.
        """
        slow = needs.host_weights if way in {"partly", "processor"} else 0.0
        seconds = slow / (self.host.bandwidth_gbs * GB) if slow else 0.0
        for place, weights in zip(places, needs.gpu_weights, strict=True):
            seconds += weights / (self._gpu(place).bandwidth_gbs * GB)
        return 1 / seconds if seconds else 0.0

    def _gpu(self, place: int) -> GpuCapacity:
        return self.host.gpus[place - 1]


def share(count: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Share `count` things by weights, the largest remainders first; equal ones by their place."""
    total = sum(max(0, w) for w in weights) or 1
    exact = [count * max(0, w) / total for w in weights]
    shared = [int(e) for e in exact]
    order = sorted(range(len(weights)), key=lambda i: (shared[i] - exact[i], i))
    for i in order[: count - sum(shared)]:
        shared[i] += 1
    return tuple(shared)


def named_estimate(fit: Fit, host: HostCapacity, prefix: str = "") -> Estimate:
    """Return the estimate with the host's own numbers of its graphics processors."""
    found = [replace(fit.needs.estimate.on(HOST), device=prefix + HOST)]
    for number, place in enumerate(fit.places):
        device: DeviceBytes = fit.needs.estimate.on(f"GPU{number}")
        found.append(replace(device, device=f"{prefix}GPU{host.gpus[place - 1].index}"))
    return Estimate(tuple(found), fit.needs.estimate.origin)


def split_of(fit: Fit, host: HostCapacity) -> LayerSplit:
    """Return which layers lie where, by the host's own numbers."""
    return LayerSplit(tuple(host.gpus[i - 1].index for i in fit.places), fit.layers)
