"""The memory probe: how much it takes, and how it adds up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.hosts import bandwidth
from roost.hosts.bandwidth import CACHES, GB, MEMORY_SHARE, best, combine, plan, probe
from roost.ops.errors import RoostError


@pytest.mark.parametrize(
    ("cores", "cache_mib", "available_mib", "wanted"),
    [
        (2, 32, 20_000, (2, 64)),
        (1, 32, 20_000, (1, 128)),
        (8, 0, 1_024, (2, 64)),  # a quarter of 1 GiB holds two pairs of buffers
        (8, 0, 400, (0, 64)),
        (0, 0, 20_000, (1, 64)),
    ],
)
def test_plan(cores: int, cache_mib: int, available_mib: int, wanted: tuple[int, int]) -> None:
    assert plan(cores, cache_mib, available_mib) == wanted


@given(st.integers(0, 512), st.integers(0, 1024), st.integers(0, 1 << 20))
def test_the_buffers_leave_the_caches_and_fit_the_memory(cores: int, cache_mib: int, available_mib: int) -> None:
    processes, buffer = plan(cores, cache_mib, available_mib)
    assert 2 * buffer * processes <= available_mib * MEMORY_SHARE
    assert buffer * max(1, cores) > cache_mib * (CACHES - 1)


def test_processes_add_up() -> None:
    found = combine([(5 * GB, 0.5, 0.5), (4 * GB, 0.5, 0.46)], 64)
    assert (found.gbs, found.processes, found.seconds, found.busy) == (18.0, 2, 0.5, False)
    assert found.measured == "2 processes copying 64 MiB buffers for 0.5 s, read plus written"


def test_the_best_round_counts() -> None:
    found = best([combine([(count * GB, 0.5, 0.5)], 64) for count in (1, 3, 2)])
    assert (found.gbs, found.seconds, found.busy) == (6.0, 1.5, False)
    assert found.measured.endswith("read plus written, best of 3")


def test_a_busy_machine_is_named_and_a_quiet_round_is_enough() -> None:
    disturbed = combine([(2 * GB, 0.5, 0.5), (GB, 0.5, 0.25)], 64)
    assert disturbed.busy
    assert best([disturbed, disturbed]).measured.endswith("best of 2 on a busy machine")
    assert not best([disturbed, combine([(GB, 0.5, 0.5)], 64)]).busy


@pytest.mark.parametrize(("quiet_from", "rounds"), [(1, 3), (3, 3), (6, 6), (99, 15)])
def test_there_are_more_rounds_while_none_was_quiet(
    monkeypatch: pytest.MonkeyPatch, quiet_from: int, rounds: int
) -> None:
    asked: list[int] = []

    def together(workers: list[object]) -> list[tuple[int, float, float]]:
        asked.append(len(workers))
        return [(GB, 0.2, 0.2 if len(asked) >= quiet_from else 0.1)]

    monkeypatch.setattr(bandwidth, "_together", together)
    assert probe(1, 0, 1024).busy is (quiet_from > rounds)
    assert len(asked) == rounds


def test_too_little_memory_is_said() -> None:
    with pytest.raises(RoostError, match="too little to measure"):
        probe(2, 0, 100)
