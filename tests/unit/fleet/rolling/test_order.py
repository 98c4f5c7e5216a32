"""Machines are updated one failure domain after the other."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.rolling.order import batches

NAMES = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=12, unique=True)


def test_a_rack_after_the_other_servers_one_by_one() -> None:
    machines = ["a", "b", "c", "d", "e", "f"]
    domains = {"a": "left", "b": "right", "c": "left", "d": "right", "e": "left", "f": ""}
    assert batches(machines, domains, {"a", "b", "d"}, at_once=2) == [["a"], ["c", "e"], ["b"], ["d"], ["f"]]
    assert batches(machines, {}, set()) == [[name] for name in machines]
    assert batches([], {}, set()) == []


def test_a_domain_called_like_a_machine_is_another_one() -> None:
    assert batches(["a", "b", "c"], {"c": "b"}, set(), at_once=3) == [["a"], ["b"], ["c"]]


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
