"""How much of a machine may be planned with: from its facts to what placement sees. Pure.

Every margin that placement keeps stands here, once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from roost.fleet.plan import GpuCapacity, HostCapacity, Placed
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.card_bandwidth import published_card_gbs
from roost.hosts.facts import HostFacts
from roost.hosts.gpus import Gpu
from roost.hosts.tiers import NOT_FOR_COMPUTING, SYSTEM_MIB, USUAL_GBS, published_gbs, shared_memory_mib, tier_of
from roost.models.footprint import HOST
from roost.ops.errors import RoostError

MIB = 1 << 20
# Of the machine's memory, for the system, Nomad and the agent: SYSTEM_MIB, but of a small machine at most this share.
SYSTEM_SHARE = 0.4
# Of a graphics processor's memory, the larger of both: estimates may be 1 % too low, and allocators waste a little.
# What a driver needs for a program is in the estimate.
GPU_RESERVE_MIB = 128
GPU_RESERVE_SHARE = 0.02
# GB/s of a card's own memory where nobody published it (`hosts.card_bandwidth`): of the cards in use the slow ones have
# about this.
USUAL_CARD_GBS = 300.0
GUESS_FACTOR = 3.0  # so many times slower or faster may be what nobody measured or published


def capacity_of(
    facts: HostFacts,
    measured: Bandwidth | None = None,
    *,
    name: str = "",
    domain: str = "",
    running: Sequence[Placed] = (),
    vendors: Collection[str] | None = None,
    others_mib: int = 0,
    kind: str = "",
) -> HostCapacity:
    """Return what may be planned with on a machine.

    `measured` is its memory's bandwidth if it was probed. `running` are model servers of ours there: the
    graphics memory that they hold is not counted as somebody else's. `vendors`: whose graphics processors the engine
    computes on; None for all. `others_mib` is memory that other programs of the machine need (`reserved_memory_mib`).
    `kind` is what its jobs depend on beside that: how they are run, by which engine.

    Raises:
        RoostError: `others_mib` is negative.
    """
    measured = measured if measured and measured.gbs > 0 else None
    rate = _memory_rate(facts, measured)
    return HostCapacity(
        name=name or facts.hostname,
        tier=tier_of(facts, measured.gbs if measured else None).name,
        free_bytes=(facts.memory_total_mib - reserve_mib(facts.memory_total_mib, others_mib)) * MIB,
        cores=facts.cpu_cores,
        bandwidth_gbs=rate.gbs,
        gpus=_gpus(facts, _shared_rate(facts, rate), _ours(running), vendors),
        domain=domain,
        kind=" ".join(part for part in (facts.arch, kind) if part),
        bandwidth_least_gbs=rate.least,
        bandwidth_most_gbs=rate.most,
    )


class _Rate(NamedTuple):
    """How fast memory is, in GB/s: what is reckoned with, and the bounds of what it is in truth."""

    gbs: float
    least: float
    most: float


def _guess(gbs: float) -> _Rate:
    return _Rate(gbs, gbs / GUESS_FACTOR, gbs * GUESS_FACTOR)


def _memory_rate(facts: HostFacts, measured: Bandwidth | None) -> _Rate:
    """Return the rate of the machine's own memory, as its processors draw it."""
    published = published_gbs(facts)
    if measured:
        return _Rate(measured.gbs, measured.gbs, measured.most_gbs)
    return _Rate(published, published, published) if published else _guess(USUAL_GBS)


def _shared_rate(facts: HostFacts, own: _Rate) -> _Rate:
    """Return the rate of memory that graphics share: they may draw more of it than processors, as it is published."""
    return own._replace(most=max(own.gbs, published_gbs(facts) or own.most))


def reserve_mib(total_mib: int, others_mib: int = 0) -> int:
    """Return what is left of so much memory to the system, Nomad and the agent, and to other programs: at most all.

    Raises:
        RoostError: `others_mib` is negative.
    """
    if others_mib < 0:
        raise RoostError(
            f"reserved_memory_mib is {others_mib}, and no program needs less than nothing.",
            fix="Set reserved_memory_mib to 0 or to what other programs of the machine need, in MiB.",
            exit_code=2,
        )
    return min(total_mib, min(SYSTEM_MIB, int(total_mib * SYSTEM_SHARE)) + others_mib)


def _ours(running: Sequence[Placed]) -> Mapping[str, int]:
    """Return bytes by device that model servers of ours hold."""
    held: dict[str, int] = {}
    for placed in running:
        for device in placed.estimate.devices:
            held[device.device] = held.get(device.device, 0) + device.total
    held.pop(HOST, None)
    return held


def _gpus(
    facts: HostFacts, shared: _Rate, ours: Mapping[str, int], vendors: Collection[str] | None
) -> tuple[GpuCapacity, ...]:
    """Return the processors of one vendor, that with most memory: an engine computes with one backend at a time.

    `index` is the place among the facts' `gpus`. Of a divided card the largest slice counts, as in `hosts.tiers`.
    Intel's integrated ones are no faster than the processor and are left out, as there.
    """
    found: dict[str, list[GpuCapacity]] = {}
    for index, gpu in enumerate(facts.gpus):
        if gpu.driver in NOT_FOR_COMPUTING or (gpu.integrated and gpu.vendor == "Intel"):
            continue
        if vendors is not None and gpu.vendor not in vendors:
            continue
        size = _usable_mib(gpu, facts.memory_total_mib)
        reserve = max(GPU_RESERVE_MIB, int(size * GPU_RESERVE_SHARE))
        used = max(0, gpu.used_mib * MIB - ours.get(f"GPU{index}", 0))
        free = (size - reserve) * MIB - (0 if gpu.mig or gpu.integrated else used)
        if free > 0:
            rate = shared if gpu.integrated else _card_rate(gpu, size)
            one = GpuCapacity(
                index, gpu.vendor, gpu.name, free, rate.gbs, integrated=gpu.integrated, alone=gpu.mig,
                wiring=_wiring(gpu), bandwidth_least_gbs=rate.least, bandwidth_most_gbs=rate.most,
            )  # fmt: skip
            found.setdefault(gpu.vendor, []).append(one)
    groups = sorted(found.values(), key=lambda group: (-sum(g.free_bytes for g in group), group[0].index))
    cards = [group for group in groups if not group[0].integrated]
    return tuple((cards or groups or [[]])[0])


def _wiring(gpu: Gpu) -> str:
    """Return what a job says of a card in words: where it is on the bus, its files, who may open them."""
    return " ".join((gpu.slot, *gpu.nodes, *map(str, gpu.gids)))


def _card_rate(gpu: Gpu, usable_mib: int) -> _Rate:
    """Return the rate of a card's memory; a slice has its share of it."""
    published = published_card_gbs(gpu.vendor, gpu.name, gpu.memory_mib)
    if published is None:
        return _guess(USUAL_CARD_GBS)
    gbs = published * usable_mib / gpu.memory_mib if gpu.mig and gpu.memory_mib else published
    return _Rate(gbs, gbs, gbs)


def _usable_mib(gpu: Gpu, total_mib: int) -> int:
    if gpu.mig:
        return max(gpu.slices_mib, default=0)
    return shared_memory_mib(gpu, total_mib) if gpu.integrated else gpu.memory_mib
