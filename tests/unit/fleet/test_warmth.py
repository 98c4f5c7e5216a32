"""Stopping and starting model servers: a table of cases, and what must hold for any."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.warmth import NEVER, Decision, ModelUse, decide

GIB = 1 << 30
NOW = 1000.0
SMALL = ModelUse("small", {"gpu": 4 * GIB}, holds=True, last_used=900.0)
BIG = ModelUse("big", {"gpu": 8 * GIB}, holds=True, last_used=950.0)
WANTED = ModelUse("wanted", {"gpu": 8 * GIB}, wanted_since=990.0)
POOLS = {"gpu": 12 * GIB}


def decision(*models: ModelUse, idle_stop_s: float = 0.0, min_stay_s: float = 0.0) -> Decision:
    return decide(models, POOLS, now=NOW, idle_stop_s=idle_stop_s, min_stay_s=min_stay_s)


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


@pytest.mark.parametrize(
    ("warm_since", "min_stay_s", "makes_room"),
    [
        (NOW - 59, 60.0, False),
        (NOW - 60, 60.0, True),
        (NOW, 0.0, True),
        (NEVER, 60.0, True),  # it was there before anybody looked
    ],
)
def test_a_model_stays_for_a_while_before_it_makes_room(
    warm_since: float, min_stay_s: float, *, makes_room: bool
) -> None:
    found = decision(SMALL, replace(BIG, warm_since=warm_since), WANTED, min_stay_s=min_stay_s)
    assert found.stop == ({"big": "wanted needs its memory"} if makes_room else {})
    assert ("being freed" if makes_room else "stays for a while") in found.waiting["wanted"]


def test_another_that_has_stayed_long_enough_makes_room_instead() -> None:
    fresh = replace(BIG, last_used=1.0, warm_since=NOW - 1)
    other = ModelUse("other", {"gpu": 8 * GIB}, holds=True, last_used=NOW)
    found = decide([fresh, other, WANTED], {"gpu": 16 * GIB}, now=NOW, idle_stop_s=0, min_stay_s=60)
    assert found.stop.keys() == {"other"}


def test_who_waits_for_what_is_at_work_is_not_told_of_a_stay() -> None:
    found = decision(SMALL, replace(BIG, busy=True, warm_since=NOW), WANTED, min_stay_s=60)
    assert "in use" in found.waiting["wanted"]


def test_being_idle_ends_a_stay() -> None:
    assert decision(replace(SMALL, warm_since=NOW), idle_stop_s=60, min_stay_s=600).stop.keys() == {"small"}


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
    warm_since=st.just(NEVER) | st.floats(0, 100),
)
MODELS = st.lists(USES, max_size=8, unique_by=lambda model: model.job)


@given(MODELS, MEMORY, st.floats(0, 50), st.floats(0, 50))
def test_never_over_the_pool_and_nobody_who_is_at_work_is_stopped(
    models: list[ModelUse], pools: dict[str, int], idle_stop_s: float, min_stay_s: float
) -> None:
    found = decide(models, pools, now=100.0, idle_stop_s=idle_stop_s, min_stay_s=min_stay_s)
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


@given(MODELS, MEMORY, st.floats(0, 50))
def test_stopping_for_room_always_leads_to_a_start(
    models: list[ModelUse], pools: dict[str, int], min_stay_s: float
) -> None:
    found = decide(models, pools, now=100.0, idle_stop_s=0, min_stay_s=min_stay_s)
    after = [
        replace(model, holds=False, stopping=False) if model.job in found.stop or model.stopping else model
        for model in models
    ]
    if found.stop:
        then = decide(after, pools, now=100.0, idle_stop_s=0, min_stay_s=min_stay_s)
        assert set(then.start) - set(found.start) - set(found.stop)


@given(MODELS, MEMORY, st.floats(0, 100))
def test_nobody_makes_room_before_the_stay_is_over(
    models: list[ModelUse], pools: dict[str, int], min_stay_s: float
) -> None:
    found = decide(models, pools, now=100.0, idle_stop_s=0, min_stay_s=min_stay_s)
    for model in models:
        assert model.job not in found.stop or 100.0 - model.warm_since >= min_stay_s


@given(st.floats(1, 100), st.lists(st.sampled_from(["one", "two"]), min_size=1, max_size=40), st.floats(0.5, 30))
def test_turns_between_models_that_do_not_fit_together_swap_them_once_a_stay(
    min_stay_s: float, turns: list[str], step_s: float
) -> None:
    warm, since, begun = "one", NEVER, [0.0]
    for turn, wanted in enumerate(turns):
        now = 1.0 + turn * step_s
        models = [
            ModelUse(
                name,
                {"gpu": 8 * GIB},
                holds=name == warm,
                wanted_since=now if name == wanted != warm else None,
                warm_since=since if name == warm else NEVER,
            )
            for name in ("one", "two")
        ]
        if decide(models, POOLS, now=now, idle_stop_s=0, min_stay_s=min_stay_s).stop:
            warm, since = wanted, now
            begun.append(now)
    assert all(after - before >= min_stay_s for before, after in pairwise(begun[1:]))


@given(MODELS, MEMORY, st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(
    models: list[ModelUse], pools: dict[str, int], chance: random.Random
) -> None:
    shuffled = list(models)
    chance.shuffle(shuffled)
    first, second = (decide(each, pools, now=100.0, idle_stop_s=20, min_stay_s=30) for each in (models, shuffled))
    assert first == second
