"""Which class of models a machine can serve. Pure, table-driven. Standard library only, Python 3.9+.

Sizes are GiB as cards are named: potato 4 to 6, sweet 8 to 12, power 16 to 24, beast 48 and more. A size in a gap
counts to the tier below it, with more room for context. Below potato is `embedded`: the model
that is always there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from roost.hosts.facts import HostFacts
from roost.hosts.gpus import Gpu

MIB, MIB_PER_GIB = 1 << 20, 1024
# Firmware and ECC keep up to 8 % of what a card is named after: a Tesla T4 of 16 GB reports 15109 MiB, an A40 of 48 GB
# 45634 MiB.
NAMED_SHARE = 0.92
PER_CARD_MIB = 1024  # driver context and compute buffers that each further card of a split model needs
SYSTEM_MIB = 2048  # for the system, Nomad and the agent, where the model lives in the machine's memory
SHARED_SHARE = 0.75  # of one memory for all, what a graphics driver lets itself be given
LEAST_TOKENS_PER_S = 5.0  # slower than this nobody waits for
MODEL_SHARE = 0.6  # of a tier's memory is weights, each read once a token; the rest is context and buffers
USUAL_GBS = 40.0  # two channels of DDR4, as long as nothing was measured
NOT_FOR_COMPUTING = {"", "vfio-pci", "nouveau", "simpledrm", "ppt"}  # no driver, lent to a guest, or without compute
# Memory that processor and graphics share, GB/s as the makers publish it.
SHARED_GBS = {
    "apple,t8103": 68.0, "apple,t6000": 200.0, "apple,t6001": 400.0, "apple,t6002": 800.0,
    "apple,t8112": 100.0, "apple,t6020": 200.0, "apple,t6021": 400.0, "apple,t6022": 800.0,
    "1586": 256.0,  # AMD Strix Halo
    "NVIDIA GB10": 273.0,
}  # fmt: skip


@dataclass(frozen=True)
class Border:
    """A tier: from `least_gib` on, in its own range up to `most_gib`; above that up to the next tier is a gap."""

    name: str
    least_gib: float
    most_gib: float
    gap: str


BORDERS = (
    Border("embedded", 0, 4, "too little for a potato model: the embedded default"),
    Border("potato", 4, 6, "between potato and sweet: potato models with a longer context"),
    Border("sweet", 8, 12, "between sweet and power: sweet models with a longer context"),
    Border("power", 16, 24, "between power and beast: power models with a longer context, or two of them"),
    Border("beast", 48, float("inf"), ""),
)
RANKS = {border.name: rank for rank, border in enumerate(BORDERS)}
KINDS = ("gpu", "igpu", "cpu")  # of equal tiers the first is taken


@dataclass(frozen=True)
class Tier:
    """What a machine can serve: `kind` says where the model would run, `usable_bytes` the memory it has there."""

    name: str
    usable_bytes: int
    kind: str  # gpu, igpu or cpu
    reason: str


def border_of(usable_mib: int) -> Border:
    """Return the tier that this much memory reaches."""
    return [b for b in BORDERS if usable_mib >= b.least_gib * MIB_PER_GIB * NAMED_SHARE][-1]


def tier_of(facts: HostFacts, measured_gbs: float | None = None) -> Tier:
    """Return the tier of the machine; `measured_gbs` is its memory's bandwidth if it was probed, in GB/s.

    A card that holds a potato model decides, since it is many times faster; else the better of what shares the memory.
    """
    cards = [tier for tier in _cards(facts) if tier.name != "embedded"]
    shared = _best([*_integrated(facts, measured_gbs), _processor(facts, measured_gbs)])
    if not cards:
        return shared
    best = _best(cards)
    if RANKS[shared.name] <= RANKS[best.name]:
        return best
    return replace(best, reason=f"{best.reason}; the machine's memory would hold {shared.name} models, but slower")


def _best(found: list[Tier]) -> Tier:
    return max(found, key=lambda tier: (RANKS[tier.name], -KINDS.index(tier.kind), tier.usable_bytes))


def _gib(mib: float) -> str:
    return f"{mib / MIB_PER_GIB:.1f} GiB"


def _tier(mib: int, kind: str, where: str, border: Border, note: str = "") -> Tier:
    gap = f"; {border.gap}" if border.gap and mib > border.most_gib * MIB_PER_GIB else ""
    if border.name == "embedded" and not note:
        gap = f"; {border.gap}"
    return Tier(border.name, mib * MIB, kind, f"{where}{note}{gap}")


def _cards(facts: HostFacts) -> list[Tier]:
    """Cards with memory of their own: alone, several of one vendor together, and the largest slice of a divided one."""
    usable = [g for g in facts.gpus if not g.integrated and g.driver not in NOT_FOR_COMPUTING]
    whole = [g for g in usable if g.memory_mib and not g.mig]
    found: list[Tier] = []
    for vendor in dict.fromkeys(g.vendor for g in whole):
        cards = sorted((g.memory_mib for g in whole if g.vendor == vendor), reverse=True)
        name = next(g.name for g in whole if g.vendor == vendor and g.memory_mib == cards[0])
        found.append(_tier(cards[0], "gpu", f"{_gib(cards[0])} on {name}", border_of(cards[0])))
        if len(cards) > 1:
            mib = sum(cards) - PER_CARD_MIB * (len(cards) - 1)
            where = f"{_gib(mib)} on {len(cards)} cards of {vendor}, a model split among them"
            found.append(_tier(mib, "gpu", where, border_of(mib)))
    for gpu in usable:
        if gpu.mig and gpu.slices_mib:
            mib = max(gpu.slices_mib)
            where = f"{_gib(mib)} in the largest of {len(gpu.slices_mib)} MIG slices of {gpu.name}: a program sees one"
            found.append(_tier(mib, "gpu", where, border_of(mib)))
    return found


def _integrated(facts: HostFacts, measured_gbs: float | None) -> list[Tier]:
    """Graphics that share the processor's memory; Intel's may take half of it and is no faster than the processor."""
    found: list[Tier] = []
    for gpu in facts.gpus:
        if not gpu.integrated or gpu.driver in NOT_FOR_COMPUTING or gpu.vendor == "Intel":
            continue
        mib = shared_memory_mib(gpu, facts.memory_total_mib)
        where = f"{_gib(mib)} that {gpu.name} shares with the processor"
        published = published_gbs(facts)  # the probe sees what the processor draws, graphics may draw more
        found.append(_paced(mib, "igpu", where, None if published else measured_gbs, published))
    return found


def shared_memory_mib(gpu: Gpu, total_mib: int) -> int:
    """Return what an integrated processor may take: its carve-out and shared memory, with room for the system."""
    most = gpu.shared_mib if gpu.shared_mib < total_mib else int(total_mib * SHARED_SHARE)
    return max(0, gpu.memory_mib + min(most, total_mib - SYSTEM_MIB))


def published_gbs(facts: HostFacts) -> float | None:
    """Return the published bandwidth of machines known for fast shared memory."""
    known = [SHARED_GBS[key] for g in facts.gpus if g.integrated for key in (g.device, g.name) if key in SHARED_GBS]
    return max(known, default=None)


def _processor(facts: HostFacts, measured_gbs: float | None) -> Tier:
    mib = max(0, facts.memory_total_mib - SYSTEM_MIB)
    where = f"{_gib(mib)} of memory for the processor"
    return _paced(mib, "cpu", where, measured_gbs, published_gbs(facts))


def _paced(mib: int, kind: str, where: str, measured_gbs: float | None, published: float | None) -> Tier:
    """Lower a tier whose models the machine's memory would read too slowly.

    A token reads all weights once, so tokens/s = bandwidth / size of the weights.
    """
    gbs = measured_gbs or published or USUAL_GBS
    source = "measured" if measured_gbs else "published" if published else "usual, not measured"
    fast_enough = int(gbs * 1e9 / LEAST_TOKENS_PER_S / MODEL_SHARE / MIB)
    by_size, by_speed = border_of(mib), border_of(fast_enough)
    if RANKS[by_speed.name] >= RANKS[by_size.name]:
        return _tier(mib, kind, where, by_size)
    slow = f"; at {gbs:.0f} GB/s ({source}) only {by_speed.name} models give {LEAST_TOKENS_PER_S:.0f} tokens/s"
    return Tier(by_speed.name, mib * MIB, kind, where + slow)
