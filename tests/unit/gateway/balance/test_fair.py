"""Who is next, and how sick endpoints are spared."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.balance.breaker import FAILURES, LONGEST_REST_S, Breaker, RetryBudget, pause_s
from roost.gateway.balance.fair import FairQueue

Entry = tuple[str, int]
entries = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100)), max_size=40)


def filled(costs: list[tuple[str, int]]) -> tuple[FairQueue[Entry], dict[Entry, int]]:
    queue: FairQueue[Entry] = FairQueue()
    cost_of = {}
    for number, (key, cost) in enumerate(costs):
        item = (key, number)
        queue.add(key, cost, item)
        cost_of[item] = cost
    return queue, cost_of


def drained(queue: FairQueue[Entry]) -> list[Entry]:
    served = []
    while len(queue):
        item = next(iter(queue))
        queue.serve(item[0], item)
        served.append(item)
    return served


@given(entries)
def test_all_are_served_in_the_order_that_was_shown_and_of_each_key_as_they_came(costs: list[tuple[str, int]]) -> None:
    queue, _ = filled(costs)
    shown = list(queue)
    served = drained(queue)
    assert served == shown
    assert len(served) == len(costs)
    for key in "abc":
        numbers = [number for name, number in served if name == key]
        assert numbers == sorted(numbers)


@given(entries)
def test_while_two_keys_wait_neither_gets_far_ahead(costs: list[tuple[str, int]]) -> None:
    """The bound of start-time fair queueing: the longest request of each of the two."""
    queue, cost_of = filled(costs)
    longest = {key: max((cost for name, cost in costs if name == key), default=0) for key in "abc"}
    got: Counter[str] = Counter()
    while len(queue):
        item = next(iter(queue))
        queue.serve(item[0], item)
        got[item[0]] += cost_of[item]
        waiting = [key for key in "abc" if queue.waiting(key)]
        for one in waiting:
            for other in waiting:
                assert abs(got[one] - got[other]) <= longest[one] + longest[other]


@given(entries, st.data())
def test_who_leaves_costs_nothing(costs: list[tuple[str, int]], data: st.DataObject) -> None:
    queue, cost_of = filled(costs)
    gone = data.draw(st.sets(st.sampled_from(sorted(cost_of)))) if cost_of else set()
    for item in gone:
        assert queue.discard(item[0], item)
        assert not queue.discard(item[0], item)
    stayed = [(key, cost) for number, (key, cost) in enumerate(costs) if (key, number) not in gone]
    expected, _ = filled(stayed)
    assert [name for name, _ in drained(queue)] == [name for name, _ in drained(expected)]


def test_one_that_asks_a_lot_does_not_keep_the_others_waiting() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(50):
        queue.add("greedy", 100, f"greedy {number}")
    queue.add("modest", 100, "modest")
    assert list(queue).index("modest") <= 1
    assert (queue.longest(), queue.newest("greedy")) == ("greedy", "greedy 49")


def test_a_key_that_was_idle_has_saved_nothing_up() -> None:
    queue: FairQueue[str] = FairQueue()
    busy = [f"busy {number}" for number in range(40)]
    for item in busy:
        queue.add("busy", 100, item)
    for item in busy[:20]:
        queue.serve("busy", item)
    for number in range(4):
        queue.add("late", 100, f"late {number}")
    order = list(queue)
    assert order.index("busy 22") < order.index("late 3")


def test_keys_that_are_gone_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.charge(f"key {number}", 1)
    assert not queue._lines


def test_a_breaker_opens_rests_longer_each_time_and_closes() -> None:
    breaker, now, rested = Breaker(), 0.0, []
    for _ in range(FAILURES - 1):
        assert not breaker.failed(now, 0.5)
    assert not breaker.resting(now)
    assert breaker.failed(now, 0.5)
    for _ in range(8):
        assert breaker.resting(now)
        rested.append(breaker.until - now)
        now = breaker.until
        assert not breaker.resting(now)  # one is let through
        breaker.begin()
        assert breaker.resting(now)  # and no other meanwhile
        assert breaker.failed(now, 0.5)
    assert rested == sorted(rested)
    assert rested[0] == 1.0
    assert rested[-1] == LONGEST_REST_S
    now = breaker.until
    breaker.begin()
    breaker.left()
    assert not breaker.resting(now)
    breaker.succeeded()
    assert not breaker.resting(now)
    assert not breaker.failed(now, 0.5)


def test_one_that_an_older_answer_closed_opens_again_at_once() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(0.0, 0.5)
    breaker.succeeded()  # of a request that was begun before
    assert not breaker.resting(0.1)
    assert [breaker.failed(0.2, 0.5) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert breaker.resting(0.3)


def test_what_was_begun_before_a_rest_makes_it_no_longer() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(0.0, 0.5)
    assert (breaker.rests, breaker.until) == (1, 1.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300))
def test_retries_stay_within_their_share(steps: list[tuple[float, bool]]) -> None:
    budget, now, requests, retries = RetryBudget(), 0.0, 0, 0
    for passed, is_retry in steps:
        now += passed
        if is_retry:
            retries += budget.spend(now)
        else:
            budget.requested()
            requests += 1
    assert retries <= budget.most + budget.share * requests + budget.per_s * now


def test_a_sick_fleet_is_not_hammered() -> None:
    budget = RetryBudget()
    granted = sum(budget.spend(0.0) for _ in range(1000))
    assert granted == budget.most
    assert budget.spend(0.2)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_are_bounded(attempt: int, chance: float) -> None:
    assert 0 <= pause_s(attempt, chance) <= 2.0
