"""Machines are updated one failure domain after the other."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.rolling.order import batches, handover

NAMES = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=12, unique=True)


def test_a_rack_after_the_other_servers_one_by_one() -> None:
    machines = ["a", "b", "c", "d", "e", "f"]
    domains = {"a": "left", "b": "right", "c": "left", "d": "right", "e": "left", "f": ""}
    assert batches(machines, domains, {"a", "b", "d"}, at_once=2) == [["a"], ["c", "e"], ["b"], ["d"], ["f"]]
    assert batches(machines, {}, set()) == [[name] for name in machines]
    assert batches([], {}, set()) == []


def test_a_domain_called_like_a_machine_is_another_one() -> None:
    assert batches(["a", "b", "c"], {"c": "b"}, set(), at_once=3) == [["a"], ["b"], ["c"]]


def test_servers_that_leave_go_before_those_that_stay_and_those_that_come_before_them() -> None:
    three = ["a", "b", "c"]
    assert batches(three, {}, {"a"}, were=three) == [["b"], ["c"], ["a"]]
    assert batches(three, {}, three, were={"a"}) == [["a"], ["b"], ["c"]], "none leaves: as ever"
    assert batches(["a", "b", "c", "d"], {"b": "x", "d": "x"}, {"a", "b", "d"}, were=three) == [
        ["d"], ["c"], ["a"], ["b"]
    ]  # fmt: skip
    assert handover(three, {"b"}, {"a"}) == [], "the first one goes first by itself"
    assert handover(["a", "b"], {"a"}, {"a", "gone"}) == [], "who is no machine of the fleet any more has left"


@given(NAMES, st.data())
def test_on_the_way_there_are_never_fewer_servers_than_before_or_after(
    machines: list[str], data: st.DataObject
) -> None:
    some = st.lists(st.sampled_from(machines), unique=True, min_size=1)
    were, servers = ({machines[0], *data.draw(some)} for _ in range(2))
    turns = [machine for batch in batches(machines, {}, servers, were=were) for machine in batch]
    assert sorted(turns) == sorted(machines)
    now = set(were)
    for machine in turns:
        now = now | {machine} if machine in servers else now - {machine}
        assert len(now) >= min(len(were), len(servers))
    assert now == servers
    stay = min(turns.index(machine) for machine in were & servers)
    assert all(turns.index(machine) < stay for machine in were - servers)


@given(NAMES, st.data())
def test_every_machine_has_one_turn_and_no_two_domains_are_open_at_a_time(
    machines: list[str], data: st.DataObject
) -> None:
    domains = {m: data.draw(st.sampled_from(["", "x", "y", "z"])) for m in machines}
    servers = set(data.draw(st.lists(st.sampled_from(machines), unique=True)))
    at_once = data.draw(st.integers(0, 4))
    found = batches(machines, domains, servers, at_once=at_once)
    flat = [machine for batch in found for machine in batch]
    assert sorted(flat) == sorted(machines)
    assert found[0] == [machines[0]]
    for batch in found:
        assert 1 <= len(batch) <= max(1, at_once)
        assert len(batch) == 1 or not servers & set(batch)
        assert len({domains[m] or m for m in batch}) == 1
    kinds = [domains[m] or f"machine {m}" for m in flat]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes == len(set(kinds)) - 1, "a domain was left and come back to"
