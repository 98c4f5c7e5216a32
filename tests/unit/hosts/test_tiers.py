"""Tiers: their borders, their gaps, and what the memory's speed allows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.hosts.facts import HostFacts, facts_from
from roost.hosts.gpus import Gpu
from roost.hosts.tiers import BORDERS, RANKS, Border, border_of, tier_of
from tests.unit.hosts.records import record

GIB = 1024  # MiB
PLAIN = facts_from(record("intel-n100"))


def with_cards(*sizes_mib: int, memory_mib: int = 8 * GIB) -> HostFacts:
    cards = [Gpu(f"0000:{i:02x}:00.0", "NVIDIA", f"card of {s}", "nvidia", s) for i, s in enumerate(sizes_mib)]
    return replace(PLAIN, gpus=tuple(cards), memory_total_mib=memory_mib)


@pytest.mark.parametrize(
    ("mib", "name"),
    [
        (0, "embedded"),
        (3 * GIB, "embedded"),
        (4040, "potato"),  # a card of 4 GB less what firmware keeps
        (4 * GIB, "potato"),
        (6 * GIB, "potato"),
        (7 * GIB, "potato"),  # the gap
        (8188, "sweet"),
        (12 * GIB, "sweet"),
        (14 * GIB, "sweet"),  # the gap
        (15109, "power"),  # a card of 16 GB with ECC
        (24564, "power"),
        (32 * GIB, "power"),  # the gap
        (40 * GIB, "power"),
        (45634, "beast"),  # a card of 48 GB with ECC
        (141 * GIB, "beast"),
    ],
)
def test_borders(mib: int, name: str) -> None:
    assert border_of(mib).name == name


@given(st.integers(0, 1 << 21), st.integers(0, 1 << 21))
def test_more_memory_is_never_a_lower_tier(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert RANKS[border_of(low).name] <= RANKS[border_of(high).name]


@pytest.mark.parametrize("border", BORDERS[1:-1], ids=lambda border: border.name)
def test_every_gap_is_said(border: Border) -> None:
    assert border.gap in tier_of(with_cards(int((border.most_gib + 1) * GIB))).reason
    assert border.gap not in tier_of(with_cards(int(border.most_gib * GIB))).reason


@pytest.mark.parametrize(
    ("cards", "memory_gib", "name", "kind"),
    [
        ((4096, 4096), 8, "potato", "gpu"),  # 7 GiB: each further card needs buffers of its own
        ((6144, 6144), 8, "sweet", "gpu"),
        ((8192, 8192), 8, "power", "gpu"),
        ((24576, 24576), 8, "beast", "gpu"),
        ((24576, 2048), 8, "power", "gpu"),
        ((2048,), 8, "potato", "cpu"),  # a card too small for any tier does not decide
        ((2048, 2048, 2048), 4, "potato", "gpu"),
        ((4096,), 128, "potato", "gpu"),  # slow memory in plenty does not outdo a card
        ((), 512, "sweet", "cpu"),
        ((), 4, "embedded", "cpu"),
    ],
)
def test_cards_and_memory(cards: tuple[int, ...], memory_gib: int, name: str, kind: str) -> None:
    tier = tier_of(with_cards(*cards, memory_mib=memory_gib * GIB))
    assert (tier.name, tier.kind) == (name, kind)


@pytest.mark.parametrize(
    ("gbs", "name"), [(5, "embedded"), (15, "potato"), (40, "sweet"), (100, "power"), (400, "beast")]
)
def test_measured_bandwidth_decides_for_memory_in_plenty(gbs: float, name: str) -> None:
    tier = tier_of(with_cards(memory_mib=512 * GIB), gbs)
    assert tier.name == name
    assert (f"{gbs:.0f} GB/s (measured)" in tier.reason) == (name != "beast")


@pytest.mark.parametrize("driver", ["", "vfio-pci", "nouveau"])
def test_a_card_without_a_driver_to_compute_with_does_not_count(driver: str) -> None:
    facts = with_cards(24576)
    assert tier_of(replace(facts, gpus=(replace(facts.gpus[0], driver=driver),))).kind == "cpu"


def test_the_processors_share_of_bandwidth_does_not_lower_fast_graphics() -> None:
    facts = facts_from(record("apple-m1-max"))
    assert (tier_of(facts, 60).name, tier_of(facts, 60).kind) == ("beast", "igpu")


def test_cards_of_two_vendors_are_not_one() -> None:
    facts = with_cards(8192)
    other = Gpu("0000:0f:00.0", "AMD", "other", "amdgpu", 8192)
    assert tier_of(replace(facts, gpus=(*facts.gpus, other))).name == "sweet"
