"""Made-up fleets and models for placement, with an estimator whose arithmetic can be checked by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from roost.fleet.place import Candidate, Wish, place
from roost.fleet.plan import GpuCapacity, HostCapacity, Placed, Plan
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.ops.errors import RoostError

MIB, GIB = 1 << 20, 1 << 30
TIERS = ("embedded", "potato", "sweet", "power", "beast")


@dataclass(frozen=True)
class Shape:
    """A model: bytes of all layers together, their number, and bytes of keys and values a token."""

    weights: int
    layers: int
    kv_per_token: int


class FakeEstimator:
    """Weights and context spread evenly over the layers; 64 MiB on each graphics processor, 96 MiB on the host."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self.asked = 0

    def _shape(self, model: str, quantisation: str) -> Shape:
        if model not in self.shapes:
            raise RoostError(f"Nothing is known of {model}.")
        shape = self.shapes[model]
        return replace(shape, weights=shape.weights * 2) if quantisation == "Q8_0" else shape

    def layers(self, model: str, quantisation: str) -> int:
        return self._shape(model, quantisation).layers

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        self.asked += 1
        shape = self._shape(model, quantisation)
        kv = shape.kv_per_token * settings.context_size * settings.parallel
        on_gpus = [
            DeviceBytes(f"GPU{g}", shape.weights * n // shape.layers, kv * n // shape.layers, other=64 * MIB)
            for g, n in zip(split.gpus, split.gpu_layers, strict=True)
        ]
        left = shape.layers - split.total
        host = DeviceBytes(
            HOST,
            shape.weights * left // shape.layers,
            kv * left // shape.layers,
            other=(96 + settings.cache_ram_mib) * MIB,
        )
        return Estimate((host, *on_gpus), "header")


def gpu(index: int, gib: float, *, gbs: float = 400.0, alone: bool = False, integrated: bool = False) -> GpuCapacity:
    return GpuCapacity(index, "NVIDIA", "card", int(gib * GIB), gbs, integrated=integrated, alone=alone)


def host(
    name: str, gib: float, *gpus: GpuCapacity, tier: str = "", gbs: float = 40.0, domain: str = ""
) -> HostCapacity:
    most = max([g.free_bytes / GIB for g in gpus], default=gib)
    found = tier or [t for t, least in zip(TIERS, (0, 3.5, 7, 14, 44), strict=True) if most >= least][-1]
    return HostCapacity(name, found, int(gib * GIB), 8, gbs, gpus, domain)


def model(
    name: str, tier: str = "embedded", quantisation: str = "Q4_K_M", *, context: int = 32768, **roles: int
) -> Candidate:
    return Candidate(name, quantisation, tuple(roles.items()) or (("main", 50),), tier, context)


SHAPES = {
    "tiny": Shape(100 * MIB, 10, 8 << 10),
    "small": Shape(2 * GIB, 20, 64 << 10),
    "router": Shape(4 * GIB, 32, 96 << 10),
    "middle": Shape(5 * GIB, 32, 128 << 10),
    "large": Shape(13 * GIB, 40, 160 << 10),
    "huge": Shape(40 * GIB, 80, 320 << 10),
}
MODELS = (
    model("tiny", "embedded", main=10),
    model("small", "potato", main=50, router=40),
    model("router", "sweet", router=80),
    model("middle", "sweet", main=60, specialist=60),
    replace(model("middle", "sweet", "Q8_0", main=60, specialist=60), rank=1),
    model("large", "power", main=80, specialist=80),
    model("huge", "beast", main=90, specialist=95),
)


def used(plan: Plan) -> dict[tuple[str, str], int]:
    """Return bytes by host and device, as the plan says that they are taken."""
    taken: dict[tuple[str, str], int] = defaultdict(int)
    for placed in plan.placed:
        for device in placed.estimate.devices:
            name, _, kind = device.device.rpartition("/")
            taken[name or placed.host, kind] += device.total
    return taken


def over(plan: Plan, hosts: Sequence[HostCapacity]) -> list[str]:
    """Return every device on which the plan takes more than there is."""
    found = []
    by_name = {h.name: h for h in hosts}
    taken = used(plan)
    for (name, kind), count in taken.items():
        machine = by_name[name]
        own = {f"GPU{g.index}": g for g in machine.gpus}
        shared = sum(taken.get((name, device), 0) for device, g in own.items() if g.integrated)
        free = machine.free_bytes - shared if kind == HOST else own[kind].free_bytes
        if count > free:
            found.append(f"{name} {kind}: {count} of {free}")
    return found


def places(plan: Plan) -> dict[tuple[str, str, int], Placed]:
    """Return what is placed, by slot, host (of pinned ones too) and copy."""
    return {(p.slot, p.host, p.copy): p for p in plan.placed}


# --- For hypothesis --------------------------------------------------------------------------------------------

sizes = st.sampled_from([1.5, 2, 4, 6, 8, 10, 12, 16, 24, 48, 80])
cards = st.lists(st.tuples(sizes, st.sampled_from([200.0, 400.0, 900.0]), st.booleans()), max_size=3)


@st.composite
def machines(draw: st.DrawFn, name: str) -> HostCapacity:
    found = draw(cards)
    gpus = [gpu(i, size, gbs=gbs, alone=alone and len(found) > 1) for i, (size, gbs, alone) in enumerate(found)]
    gbs = draw(st.sampled_from([20.0, 40.0, 300.0]))
    made = host(
        name, draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64])), *gpus,
        gbs=gbs, domain=draw(st.sampled_from(["", "rack-a", "rack-b"])),
    )  # fmt: skip
    least, most = draw(st.sampled_from([(0.0, 0.0), (gbs, 3 * gbs), (gbs / 3, 3 * gbs)]))
    return replace(made, bandwidth_least_gbs=least, bandwidth_most_gbs=most)


@st.composite
def fleets(draw: st.DrawFn, least: int = 1, most: int = 4) -> list[HostCapacity]:
    return [draw(machines(f"host{i}")) for i in range(draw(st.integers(least, most)))]


@st.composite
def slot_wishes(draw: st.DrawFn, names: Sequence[str] = (), most: int = 4) -> list[Wish]:
    """Wishes for anywhere; with `names` for those hosts too."""
    slots = draw(
        st.lists(st.sampled_from(["main", "router", "specialist", "memory"]), min_size=1, max_size=most, unique=True)
    )
    found = []
    for slot in slots:
        named = draw(st.sampled_from(["", "", "", "small", "middle", "huge"]))
        found.append(
            Wish(
                slot,
                model=named,
                gpu=draw(st.sampled_from(["auto", "auto", "none"])),
                context_size=draw(st.sampled_from([0, 0, 2048, 16384])),
                parallel=draw(st.sampled_from([1, 2])),
                cache_ram_mib=draw(st.sampled_from([0, 256])),
                host=draw(st.sampled_from(["", *names])),
            )
        )
    return found


def planned(
    hosts: list[HostCapacity],
    wishes: list[Wish],
    present: Plan | None = None,
    models: tuple[Candidate, ...] = MODELS,
) -> Plan:
    """Plan with what is known of `SHAPES`; no device holds more than it has."""
    plan = place(hosts, models, wishes, FakeEstimator(SHAPES), present)
    assert over(plan, hosts) == []
    return plan


def only(plan: Plan) -> Placed:
    """Return the one server of a plan that refuses none."""
    assert plan.refused == ()
    (placed,) = plan.placed
    return placed
