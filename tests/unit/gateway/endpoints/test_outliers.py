"""Who is an outlier: a decision from counts alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.endpoints.outliers import NEW, Policy, Record, Result, ejected, may_eject, seen, verdict

POLICY = Policy()
GOOD, BAD = Result.SUCCEEDED, Result.FAILED
RESULTS = st.lists(st.tuples(st.sampled_from(Result), st.floats(0, 20)), max_size=60)


def after(results: list[Result], record: Record = NEW, at: float = 1000.0) -> Record:
    for result in results:
        record = seen(record, result, at, POLICY)
    return record


def test_failures_in_a_row_are_enough() -> None:
    assert not verdict(after([BAD] * 4), [NEW], 1000, POLICY)
    assert verdict(after([BAD] * 5), [NEW], 1000, POLICY) == "5 requests in a row failed"
    assert not verdict(after([BAD] * 4 + [GOOD] + [BAD] * 4), [NEW], 1000, POLICY)


def test_a_rate_counts_against_that_of_the_peers() -> None:
    shaky, fine = after([BAD, GOOD] * 10), after([GOOD] * 20)
    assert verdict(shaky, [fine], 1000, POLICY) == "10 of 20 requests failed, 0 of 20 at its peers"
    assert not verdict(shaky, [shaky], 1000, POLICY)  # then it is not the endpoint
    assert not verdict(shaky, [after([GOOD] * 3)], 1000, POLICY)  # too few to compare with
    assert not verdict(after([BAD, GOOD] * 3), [fine], 1000, POLICY)


def test_what_is_long_ago_does_not_count() -> None:
    shaky = after([BAD, GOOD] * 10, at=1000)
    assert verdict(shaky, [after([GOOD] * 20, at=1070)], 1070, POLICY) == ""


def test_each_ejection_is_longer_up_to_a_bound_and_is_forgiven() -> None:
    record, now, lengths = NEW, 1000.0, []
    for _ in range(12):
        record = ejected(record, "why", now, POLICY)
        lengths.append(record.ejected_until - now)
        now = record.ejected_until
    assert lengths[:3] == [30, 60, 90]
    assert lengths[-1] == POLICY.most_s
    assert ejected(record, "why", now + 12 * POLICY.forgive_s, POLICY).ejections == 1


@given(st.integers(0, 12), st.integers(0, 12))
def test_never_the_last_one_and_never_more_than_half(gone: int, there: int) -> None:
    peers = [Record(ejected_until=5)] * gone + [NEW] * there
    if may_eject(peers, 0):
        assert there >= 1
        assert gone + 1 <= max(1, (gone + there + 1) / 2)
    else:
        assert there == 0 or gone + 1 > max(1, (gone + there + 1) // 2)


@given(RESULTS)
def test_no_order_of_results_counts_more_than_there_were(results: list[tuple[Result, float]]) -> None:
    record, now = NEW, 0.0
    for result, pause in results:
        now += pause
        record = seen(record, result, now, POLICY)
    total = record.newer + record.older
    assert total.total <= len(results)
    assert record.in_row <= sum(result is BAD for result, _ in results)
    assert bool(record.in_row) == bool(results and results[-1][0] is BAD)
