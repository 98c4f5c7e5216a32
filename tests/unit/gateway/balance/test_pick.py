"""Which endpoint a request goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.balance.pick import READING, SHARING, Candidate, Why, cost, pick

candidates = st.lists(
    st.builds(
        Candidate,
        id=st.text("abcdef", min_size=1, max_size=3),
        slots=st.none() | st.integers(1, 8),
        running=st.integers(0, 10),
        work=st.floats(0, 10_000),
        match=st.integers(0, 5000),
        held=st.integers(0, 9),
        tried=st.booleans(),
        resting=st.booleans(),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.id,
)


def test_work_counts_and_not_requests() -> None:
    one_long = Candidate("a", slots=4, running=1, work=4000)
    many_short = Candidate("b", slots=4, running=3, work=60)
    assert pick([one_long, many_short], 100).id == "b"


def test_the_endpoint_that_holds_the_conversation_gets_its_next_turn() -> None:
    holds = Candidate("b", slots=4, running=1, work=50, match=2000)
    picked = pick([Candidate("a", slots=4), holds], 2100)
    assert (picked.id, picked.why) == ("b", Why.PREFIX)


def test_affinity_does_not_outweigh_any_amount_of_work() -> None:
    holds = Candidate("b", slots=2, running=1, work=5000, match=2000)
    picked = pick([Candidate("a", slots=2), holds], 2100)
    assert (picked.id, picked.why) == ("a", Why.LEAST_WORK)


def test_a_full_endpoint_is_waited_for_only_where_that_is_shorter() -> None:
    free = Candidate("a", slots=1)
    nearly_done = Candidate("b", slots=1, running=1, work=10, match=4000)
    far_from_done = Candidate("b", slots=1, running=1, work=1000, match=4000)
    assert pick([free, nearly_done], 4000) == pick([nearly_done, free], 4000)
    assert pick([free, nearly_done], 4000).why is Why.WORTH_WAITING
    assert pick([free, nearly_done], 4000, may_wait=False).id == "a"
    assert pick([free, far_from_done], 4000).id == "a"


def test_a_new_conversation_goes_where_fewest_are_held() -> None:
    assert pick([Candidate("a", slots=2, held=2), Candidate("b", slots=2, held=1)], 100).id == "b"


def test_what_failed_or_rests_is_taken_only_where_nothing_else_is_left() -> None:
    busy = Candidate("b", slots=4, running=3, work=900)
    for bad in (Candidate("a", tried=True), Candidate("a", resting=True)):
        assert pick([bad, busy], 10).id == "b"
        assert pick([bad], 10).id == "a"


@given(candidates, st.integers(0, 5000))
def test_nothing_is_put_on_a_full_endpoint_and_nothing_refused_that_could_begin(
    found: list[Candidate], prompt: int
) -> None:
    picked = pick(found, prompt, may_wait=False)
    by_id = {one.id: one for one in found}
    good = [one for one in found if not one.resting and not one.tried]
    if picked.id:
        assert by_id[picked.id].free
    if any(one.free for one in good):
        assert picked.id
        chosen = by_id[picked.id]
        assert cost(chosen, prompt) == min(cost(one, prompt) for one in good if one.free)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 60), st.integers(1, 4000), st.integers(1, 500))
def test_requests_that_all_begin_alike_do_not_pile_up(
    endpoints: int, slots: int, requests: int, prompt: int, answer: int
) -> None:
    """The first one leaves its prompt at one endpoint; all the others, at the same time, would like to go there."""
    running = dict.fromkeys("abcdef"[:endpoints], 0)
    work = dict.fromkeys(running, 0.0)
    held: set[str] = set()
    for _ in range(requests):
        found = [
            Candidate(name, slots, running[name], work[name], match=prompt if name in held else 0) for name in running
        ]
        picked = pick(found, prompt, may_wait=False)
        if picked.id is None:
            assert all(number == slots for number in running.values())
            continue
        if prompt * READING * slots < SHARING * answer:  # reading it elsewhere costs less than one more answer here
            assert running[picked.id] == min(running.values())
        running[picked.id] += 1
        work[picked.id] += answer + (0 if picked.id in held else READING * prompt)
        held.add(picked.id)
    assert max(running.values()) <= slots
