"""How much of a machine may be planned with: table-driven over recorded machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.fleet.capacity import GUESS_FACTOR, MIB, USUAL_CARD_GBS, capacity_of, reserve_mib
from roost.fleet.plan import GpuCapacity, HostCapacity, Placed
from roost.hosts.bandwidth import BUSY_FACTOR, Bandwidth
from roost.hosts.facts import HostFacts, facts_from
from roost.hosts.tiers import USUAL_GBS
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.ops.errors import RoostError
from tests.unit.hosts.records import record

MEASURED = Bandwidth(55.0, 8, 64, 0.6, "copies")


def facts(name: str) -> HostFacts:
    return facts_from(record(name))


def rates(of: HostCapacity | GpuCapacity) -> tuple[float, float, float]:
    return of.bandwidth_gbs, of.bandwidth_least_gbs, of.bandwidth_most_gbs


@pytest.mark.parametrize(
    ("total_mib", "reserved"), [(1500, 600), (4096, 1638), (5120, 2048), (16384, 2048), (262144, 2048)]
)
def test_a_small_machine_keeps_a_share_and_a_large_one_a_fixed_amount(total_mib: int, reserved: int) -> None:
    assert reserve_mib(total_mib) == reserved


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("container-quota-v2", []),
        ("nvidia-t4", [(0, 15360 - 307, False, False)]),
        ("nvidia-2x4090", [(0, 24564 - 491, False, False), (1, 24564 - 491, False, False)]),
        ("nvidia-nouveau", []),
        ("intel-n100", []),
    ],
)
def test_graphics_memory(name: str, gpus: list[tuple[int, int, bool, bool]]) -> None:
    found = capacity_of(facts(name))
    assert [(g.index, g.free_bytes // MIB, g.integrated, g.alone) for g in found.gpus] == gpus


def test_an_integrated_processor_shares_the_machines_memory_and_its_speed() -> None:
    found = capacity_of(facts("amd-strix-halo"))
    (gpu,) = found.gpus
    assert gpu.integrated
    assert gpu.bandwidth_gbs == found.bandwidth_gbs == 256.0


def test_of_a_divided_card_the_largest_slice_counts_and_stands_alone() -> None:
    machine = facts("nvidia-mig-h100")
    found = capacity_of(machine)
    assert all(gpu.alone for gpu in found.gpus)
    assert found.gpus[0].free_bytes < max(machine.gpus[0].slices_mib) * MIB


def test_memory_that_others_hold_is_not_planned_with_and_our_own_is() -> None:
    machine = facts("nvidia-t4")
    busy = replace(machine, gpus=(replace(machine.gpus[0], used_mib=5000),))
    whole = capacity_of(machine).gpus[0].free_bytes
    assert capacity_of(busy).gpus[0].free_bytes == whole - 5000 * MIB
    ours = Placed(
        "main", "m", "Q4_K_M", machine.hostname, ServerSettings(4096), LayerSplit((0,), (33,)),
        Estimate((DeviceBytes(HOST, other=MIB), DeviceBytes("GPU0", weights=4000 * MIB)), "header"), "",
    )  # fmt: skip
    assert capacity_of(busy, running=[ours]).gpus[0].free_bytes == whole - 1000 * MIB


def test_only_processors_on_which_the_engine_computes_count() -> None:
    assert capacity_of(facts("nvidia-t4"), vendors=["AMD"]).gpus == ()
    assert len(capacity_of(facts("nvidia-t4"), vendors=["NVIDIA"]).gpus) == 1


def test_measured_speed_wins() -> None:
    found = capacity_of(facts("nvidia-t4"), MEASURED, name="other", domain="rack")
    assert (found.bandwidth_gbs, found.gpus[0].bandwidth_gbs) == (55.0, USUAL_CARD_GBS)
    assert (found.name, found.domain, found.tier) == ("other", "rack", "power")


def test_memory_may_be_faster_than_what_was_measured_on_a_busy_machine_or_not_at_all() -> None:
    machine, shared = facts("nvidia-t4"), facts("amd-strix-halo")
    busy, guess = replace(MEASURED, busy=True), GUESS_FACTOR * USUAL_GBS
    assert rates(capacity_of(machine, MEASURED)) == (55.0, 55.0, 55.0)
    assert rates(capacity_of(machine, busy)) == (55.0, 55.0, 55.0 * BUSY_FACTOR)
    assert rates(capacity_of(machine)) == (USUAL_GBS, USUAL_GBS / GUESS_FACTOR, guess)
    assert rates(capacity_of(machine, replace(MEASURED, gbs=0.0))) == rates(capacity_of(machine)), "measured nothing"
    (graphics,) = capacity_of(shared).gpus
    assert rates(graphics) == (256.0, 256.0, 256.0), "published"
    for measured in (MEASURED, busy):  # by the processor, and graphics may draw more
        found = capacity_of(shared, measured)
        assert rates(found) == (55.0, 55.0, measured.most_gbs)
        assert rates(found.gpus[0]) == (55.0, 55.0, 256.0)


def test_a_card_of_which_nothing_is_published_may_be_much_faster_or_slower() -> None:
    known = capacity_of(facts("nvidia-2x4090")).gpus[0]
    assert rates(known) == (1008.0, 1008.0, 1008.0)
    machine = facts("nvidia-2x4090")
    unknown = replace(machine, gpus=tuple(replace(g, name="Unheard-of 1") for g in machine.gpus))
    usual = USUAL_CARD_GBS
    assert rates(capacity_of(unknown).gpus[0]) == (usual, usual / GUESS_FACTOR, usual * GUESS_FACTOR)


def test_a_cards_speed_is_the_published_one_else_the_usual() -> None:
    fast = facts("nvidia-2x4090")
    assert [gpu.bandwidth_gbs for gpu in capacity_of(fast).gpus] == [1008.0, 1008.0]
    unknown = replace(fast, gpus=tuple(replace(gpu, name="NVIDIA Something") for gpu in fast.gpus))
    assert {gpu.bandwidth_gbs for gpu in capacity_of(unknown).gpus} == {USUAL_CARD_GBS}
    (slice_,) = capacity_of(facts("nvidia-mig-h100")).gpus
    assert 0 < slice_.bandwidth_gbs < 3350.0


def test_memory_of_other_programs_is_left_to_them_once() -> None:
    machine = facts("amd-strix-halo")
    before, after = capacity_of(machine), capacity_of(machine, others_mib=4096)
    assert before.free_bytes - after.free_bytes == 4096 * MIB
    assert (after.gpus, after.tier) == (before.gpus, before.tier)
    assert capacity_of(machine, others_mib=machine.memory_total_mib).free_bytes == 0
    with pytest.raises(RoostError, match="reserved_memory_mib is -1"):
        capacity_of(machine, others_mib=-1)
