"""Stopping and starting model servers: a table of cases, and what must hold for any."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.warmth import Decision, ModelUse, decide

GIB = 1 << 30
NOW = 1000.0
SMALL = ModelUse("small", {"gpu": 4 * GIB}, holds=True, last_used=900.0)
BIG = ModelUse("big", {"gpu": 8 * GIB}, holds=True, last_used=950.0)
WANTED = ModelUse("wanted", {"gpu": 8 * GIB}, wanted_since=990.0)
POOLS = {"gpu": 12 * GIB}


def decision(*models: ModelUse, idle_stop_s: float = 0.0) -> Decision:
    return decide(models, POOLS, now=NOW, idle_stop_s=idle_stop_s)


def test_what_fits_is_started() -> None:
    assert decision(SMALL, WANTED) == Decision(start=("wanted",))


def test_the_least_recently_used_that_suffices_makes_room() -> None:
    found = decision(SMALL, BIG, WANTED)
    assert found.stop == {"big": "wanted needs its memory"}  # small is older, but stopping it alone is in vain
    assert found.start == ()
    assert "freed" in found.waiting["wanted"]


def test_room_that_is_being_freed_is_waited_for_and_not_given_away() -> None:
    other = ModelUse("other", {"gpu": 1 * GIB}, wanted_since=995.0)
    found = decision(SMALL, replace(BIG, stopping=True), WANTED, other)
    assert found.stop == {"small": "other needs its memory"}  # 4 + 8 are planned, so the gibibyte has to come from it
    assert found.start == ()


@pytest.mark.parametrize("big", [replace(BIG, busy=True), replace(BIG, keep_warm=True), replace(BIG, wanted_since=1.0)])
def test_nothing_is_stopped_in_vain(big: ModelUse) -> None:
    found = decision(SMALL, big, WANTED)
    assert found.stop == {}
    assert "in use" in found.waiting["wanted"]


def test_memory_elsewhere_is_left_alone() -> None:
    elsewhere = ModelUse("elsewhere", {"host": 64 * GIB}, holds=True, last_used=1.0)
    assert decision(elsewhere, BIG, WANTED).stop.keys() == {"big"}


def test_what_can_never_fit_is_said() -> None:
    found = decision(SMALL, replace(WANTED, memory={"gpu": 13 * GIB}))
    assert (found.stop, found.start) == ({}, ())
    assert found.waiting["wanted"] == "it needs more memory than gpu has"


def test_a_start_that_failed_is_not_repeated_at_once() -> None:
    assert decision(replace(WANTED, not_before=NOW + 5)).start == ()
    assert decision(replace(WANTED, not_before=NOW)).start == ("wanted",)


def test_idle_models_stop_only_if_that_is_wanted() -> None:
    assert decision(SMALL, BIG).stop == {}
    assert decision(SMALL, BIG, idle_stop_s=60).stop == {"small": "nobody used it for 60 s"}
    assert decision(replace(SMALL, keep_warm=True), BIG, idle_stop_s=60).stop == {}


POOL_NAMES = st.sampled_from(["gpu0", "gpu1", "host"])
MEMORY = st.dictionaries(POOL_NAMES, st.integers(0, 20), max_size=3)
USES = st.builds(
    ModelUse,
    job=st.text("abcdefgh", min_size=1, max_size=3),
    memory=MEMORY,
    holds=st.booleans(),
    stopping=st.booleans(),
    wanted_since=st.none() | st.floats(0, 100),
    last_used=st.floats(0, 100),
    busy=st.booleans(),
    keep_warm=st.booleans(),
    not_before=st.floats(0, 200),
)
MODELS = st.lists(USES, max_size=8, unique_by=lambda model: model.job)


@given(MODELS, MEMORY, st.floats(0, 50))
def test_never_over_the_pool_and_nobody_who_is_at_work_is_stopped(
    models: list[ModelUse], pools: dict[str, int], idle_stop_s: float
) -> None:
    found = decide(models, pools, now=100.0, idle_stop_s=idle_stop_s)
    by_job = {model.job: model for model in models}
    for job in found.stop:
        assert by_job[job].may_stop()
        assert not by_job[job].busy
        assert not by_job[job].keep_warm
    for job in found.start:
        assert by_job[job].wanted_since is not None
        assert not by_job[job].holds
    for pool, capacity in pools.items():
        held = sum(model.memory.get(pool, 0) for model in models if model.holds)
        begun = sum(by_job[job].memory.get(pool, 0) for job in found.start)
        assert begun == 0 or held + begun <= capacity  # what is being stopped still counts


@given(MODELS, MEMORY)
def test_stopping_for_room_always_leads_to_a_start(models: list[ModelUse], pools: dict[str, int]) -> None:
    found = decide(models, pools, now=100.0, idle_stop_s=0)
    after = [
        replace(model, holds=False, stopping=False) if model.job in found.stop or model.stopping else model
        for model in models
    ]
    if found.stop:
        assert set(decide(after, pools, now=100.0, idle_stop_s=0).start) - set(found.start) - set(found.stop)


@given(MODELS, MEMORY, st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(
    models: list[ModelUse], pools: dict[str, int], chance: random.Random
) -> None:
    shuffled = list(models)
    chance.shuffle(shuffled)
    assert decide(models, pools, now=100.0, idle_stop_s=20) == decide(shuffled, pools, now=100.0, idle_stop_s=20)
