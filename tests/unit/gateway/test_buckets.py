"""The arithmetic of limits: properties that hold for every sequence of requests and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.account.buckets import FORGIVE_S, LONGEST_PENALTY_S, Backoff, Bucket
from roost.gateway.account.places import duration

steps = st.lists(st.tuples(st.floats(0, 90), st.integers(1, 300)), min_size=1, max_size=60)
PER_MINUTE = st.integers(1, 1000)


@given(PER_MINUTE, steps)
def test_never_more_than_capacity_and_what_time_gave(per_minute: int, asked: list[tuple[float, int]]) -> None:
    bucket, now, taken = Bucket(), 0.0, []
    for pause, amount in asked:
        now += pause
        if bucket.wait_s(amount, per_minute, now) == 0:
            taken.append((now, bucket.take(amount, per_minute)))
        for start in range(len(taken)):
            since = sum(amount for _, amount in taken[start:])
            assert since <= per_minute + per_minute / 60 * (now - taken[start][0]) + 1e-6


@given(PER_MINUTE, steps)
def test_who_waits_as_told_is_let_in_and_not_before(per_minute: int, asked: list[tuple[float, int]]) -> None:
    bucket, now = Bucket(), 0.0
    for pause, amount in asked:
        now += pause
        wait = bucket.wait_s(amount, per_minute, now)
        if wait:
            assert bucket.wait_s(amount, per_minute, now + wait * 0.99) > 0
            now += wait + 1e-6
        assert bucket.wait_s(amount, per_minute, now) == pytest.approx(0, abs=1e-6)
        bucket.take(amount, per_minute)


@given(PER_MINUTE, steps, st.lists(st.integers(0, 2000), min_size=60, max_size=60))
def test_settled_use_is_bounded_too(per_minute: int, asked: list[tuple[float, int]], real: list[int]) -> None:
    """What was really used exceeds the bound by the last request at most: its debt has to be waited for."""
    bucket, now, used, largest = Bucket(), 0.0, 0, 0
    for (pause, amount), really in zip(asked, real, strict=False):
        now += pause
        if bucket.wait_s(amount, per_minute, now) == 0:
            bucket.settle(really - bucket.take(amount, per_minute))
            used, largest = used + really, max(largest, really)
        assert used <= per_minute + per_minute / 60 * now + largest + 1e-6


@given(PER_MINUTE, st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_a_clock_that_jumps_back_gives_nothing(per_minute: int, times: list[float]) -> None:
    bucket = Bucket(at=max([0.0, *times]))
    bucket.take(per_minute, per_minute)
    for now in times:
        assert bucket.remaining(per_minute, now) == 0


@given(PER_MINUTE, PER_MINUTE, st.floats(0, 60))
def test_a_size_that_changes_under_way_holds_from_then_on(old: int, new: int, pause: float) -> None:
    bucket = Bucket()
    bucket.take(old, old)
    assert bucket.remaining(new, pause) <= new
    assert Bucket().remaining(new, pause) == new


def test_the_impatient_wait_longer_each_time_and_the_patient_never() -> None:
    hasty = Backoff()
    waits = []
    for tick in range(6000):
        now = tick / 100
        waits.append(hasty.refuse(0.05, now))
    assert waits[0] == pytest.approx(0.05)
    assert max(waits) == pytest.approx(LONGEST_PENALTY_S)
    patient, now = Backoff(), 0.0
    for _ in range(50):
        wait = patient.refuse(0.5, now)
        assert wait == pytest.approx(0.5)
        now += wait
        assert patient.blocked_s(now) == 0
        patient.admit(now)


def test_refused_side_by_side_is_one_sign_of_impatience() -> None:
    backoff = Backoff()
    assert max(backoff.refuse(5.0, 0.001 * number) for number in range(100)) == pytest.approx(5.0)


def test_after_a_while_all_is_forgiven() -> None:
    backoff = Backoff()
    backoff.refuse(1.0, 0.0)
    for now in (0.5, 1.5, 2.6):
        backoff.refuse(3.0, now)
    assert backoff.blocked_s(2.7) > 0
    quiet = backoff.until + FORGIVE_S
    backoff.admit(quiet)
    assert backoff.refuse(0.1, quiet + 1) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.001, 60)), max_size=80))
def test_a_wait_is_never_shorter_than_needed_nor_without_end(refusals: list[tuple[float, float]]) -> None:
    backoff, now = Backoff(), 0.0
    for pause, wait in refusals:
        now += pause
        told = backoff.refuse(wait, now)
        assert wait - 1e-9 <= told <= LONGEST_PENALTY_S + 1e-9
        assert backoff.blocked_s(now) <= told + 1e-9


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0004, "1ms"), (0.85, "850ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s")]
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
