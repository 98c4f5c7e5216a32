"""What placement promises for every fleet: never over memory, never worse with more, no needless move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.place import Wish, place, shape_of
from roost.fleet.plan import HostCapacity, Plan
from roost.hosts.tiers import LEAST_TOKENS_PER_S
from roost.models.footprint import HOST
from tests.support.examples import examples
from tests.support.fleets import (
    MODELS,
    SHAPES,
    FakeEstimator,
    fleets,
    gpu,
    host,
    machines,
    over,
    places,
    slot_wishes,
)

EXAMPLES = examples(50)
ROLES = ("main", "router", "specialist", "memory")


def planned(hosts: Sequence[HostCapacity], wishes: Sequence[Wish], present: Plan | None = None) -> Plan:
    return place(hosts, MODELS, wishes, FakeEstimator(SHAPES), present)


def shapes(hosts: Sequence[HostCapacity]) -> list[Wish]:
    return [wish for host in hosts for wish in shape_of(host, parallel=2, cache_ram_mib=256)]


def served(plan: Plan) -> tuple[int, ...]:
    """Servers by role, as the first part of the objective counts them; written anew here."""
    return tuple(sum(p.slot == role for p in plan.placed) for role in ROLES)


@EXAMPLES
@given(fleets(), st.data())
def test_no_device_is_planned_beyond_its_memory(hosts: list[HostCapacity], data: st.DataObject) -> None:
    wishes = data.draw(slot_wishes([h.name for h in hosts]))
    fill = shapes(hosts) if data.draw(st.booleans()) else []
    taken = {(w.slot, w.host) for w in wishes}
    plan = planned(hosts, [*wishes, *(w for w in fill if (w.slot, w.host) not in taken)])
    assert over(plan, hosts) == []
    assert len(plan.placed) + len(plan.refused) >= len(wishes)


@EXAMPLES
@given(st.lists(st.sampled_from([0.2, 0.5, 1.1, 3, 24]), min_size=2, max_size=3), st.sampled_from(["middle", "huge"]))
def test_no_graphics_processor_is_named_without_a_layer(sizes: list[float], named: str) -> None:
    machine = host("h", 64, *(gpu(index, size) for index, size in enumerate(sizes)))
    for placed in planned([machine], [Wish("main", model=named)]).placed:
        assert all(placed.split.gpu_layers)
        gpus = [f"GPU{index}" for index in placed.split.gpus]
        assert [d.device for d in placed.estimate.devices if d.device != HOST] == gpus


@EXAMPLES
@given(fleets(), st.data())
def test_the_order_in_which_things_are_given_does_not_matter(hosts: list[HostCapacity], data: st.DataObject) -> None:
    wishes = data.draw(slot_wishes([h.name for h in hosts]))
    plan = planned(hosts, wishes)
    mixed = data.draw(st.permutations(hosts)), data.draw(st.permutations(MODELS)), data.draw(st.permutations(wishes))
    assert place(*mixed, FakeEstimator(SHAPES)) == plan


@EXAMPLES
@given(fleets(), machines("another"), st.data())
def test_one_more_host_never_serves_fewer_roles(
    hosts: list[HostCapacity], another: HostCapacity, data: st.DataObject
) -> None:
    wishes = data.draw(slot_wishes())
    assert served(planned([*hosts, another], wishes)) >= served(planned(hosts, wishes))


@EXAMPLES
@given(fleets(), machines("another"), st.data())
def test_one_more_host_never_makes_a_running_fleet_worse(
    hosts: list[HostCapacity], another: HostCapacity, data: st.DataObject
) -> None:
    wishes = [*data.draw(slot_wishes()), *(replace(w, slot=f"{w.slot}-here", role=w.slot) for w in shapes(hosts))]
    before = planned(hosts, wishes)
    after = planned([*hosts, another], wishes, before)
    assert served(after) >= served(before)
    assert {(r.slot, r.host, r.copy) for r in after.refused} <= {(r.slot, r.host, r.copy) for r in before.refused}


@EXAMPLES
@given(fleets(), st.data())
def test_planning_again_changes_nothing(hosts: list[HostCapacity], data: st.DataObject) -> None:
    wishes = data.draw(slot_wishes([h.name for h in hosts]))
    plan = planned(hosts, wishes)
    again = planned(hosts, wishes, plan)
    assert (again.placed, again.refused) == (plan.placed, plan.refused)


@EXAMPLES
@given(fleets(2, 5), st.data())
def test_when_a_host_leaves_only_what_was_on_it_moves(hosts: list[HostCapacity], data: st.DataObject) -> None:
    wishes = [*shapes(hosts), Wish("extra", role="main", copies=2)]
    before = planned(hosts, wishes)
    gone = data.draw(st.sampled_from(hosts)).name
    rest = [h for h in hosts if h.name != gone]
    after = planned(rest, [w for w in wishes if w.host != gone], before)
    was, now = places(before), places(after)
    new_on = {placed.host for key, placed in now.items() if key not in was}
    for key, placed in was.items():
        if placed.host == gone:
            continue
        if placed.host not in new_on:  # nothing came, nothing changes
            assert replace(now[key], spares=()) == replace(placed, spares=())
        elif placed.slot in {"router", "specialist"}:  # optional: what came may have needed its room
            continue
        else:  # or the room that contexts had grown into
            assert (now[key].model, now[key].quantisation) == (placed.model, placed.quantisation)
            assert now[key].settings.context_size <= placed.settings.context_size
    for key in now.keys() - was.keys():
        assert any(line.startswith(key[0]) and f"its host {gone} is gone" in line for line in after.explanation)


@EXAMPLES
@given(fleets(2, 5), st.data())
def test_what_may_run_anywhere_fits_its_spare_when_its_host_fails(
    hosts: list[HostCapacity], data: st.DataObject
) -> None:
    wishes = data.draw(slot_wishes())
    plan = planned(hosts, wishes)
    for gone in {p.host for p in plan.placed}:
        stay = Plan(tuple(p for p in plan.placed if p.host != gone and not p.rpc))
        moved = [p for p in plan.placed if p.host == gone and p.spares and not p.rpc]
        for placed in moved:
            assert gone not in placed.spares
        # what fails over asks for exactly what it had, beside what stays where it is
        asked = [
            Wish(p.slot, p.slot, p.model, p.quantisation, "auto" if p.split.gpus else "none", p.settings.context_size,
                 parallel=p.settings.parallel, cache_ram_mib=p.settings.cache_ram_mib, host=p.spares[0])
            for p in moved
        ]  # fmt: skip
        held = [w for w in wishes if w.slot in {p.slot for p in stay.placed}]
        after = planned([h for h in hosts if h.name != gone], [*held, *asked], stay)
        assert [r for r in after.refused if r.host] == []
        assert {(p.slot, p.host) for p in after.placed if not p.rpc} >= {(w.slot, w.host) for w in asked}


@EXAMPLES
@given(machines("h"), st.sampled_from(["", "small", "middle"]))
def test_main_and_router_share_a_model_only_where_no_other_fits(machine: HostCapacity, named: str) -> None:
    wishes = [Wish("main", model=named, host="h"), Wish("router", host="h")]
    chosen = {p.slot: p.model for p in planned([machine], wishes).placed}
    if len(chosen) < 2 or len(set(chosen.values())) == 2:
        return
    able = {role: {c.model for c in MODELS if c.quality(role) and c.allowed_on(machine.tier)} for role in ROLES[:2]}
    for main in {named} if named else able["main"]:
        for router in able["router"] - {main}:
            pair = [replace(wishes[0], model=main), replace(wishes[1], model=router)]
            found = planned([machine], pair).placed
            # what is named may be slow, or lie on its card in part; what is chosen may not
            poor = any(
                p.tokens_per_s < LEAST_TOKENS_PER_S or p.slowed for p in found if p.slot == "router" or not named
            )
            assert len(found) < 2 or poor, (main, router)


@EXAMPLES
@given(fleets(2, 5), st.data())
def test_each_server_is_placed_once_and_spares_hold_whatever_fails(
    hosts: list[HostCapacity], data: st.DataObject
) -> None:
    own = [
        replace(w, slot=f"{w.slot}-{w.host}", role=w.slot, failover=True)
        for w in data.draw(slot_wishes([h.name for h in hosts]))
        if w.host
    ]
    anywhere = [replace(w, copies=data.draw(st.integers(1, 3))) for w in data.draw(slot_wishes(most=2))]
    kinds = data.draw(st.lists(st.sampled_from(["", "other"]), min_size=len(hosts), max_size=len(hosts)))
    hosts = [replace(h, kind=kind) for h, kind in zip(hosts, kinds, strict=True)]
    plan = planned(hosts, [*own, *anywhere])
    asked = [(w.slot, copy) for w in own for copy in (0,)] + [(w.slot, c) for w in anywhere for c in range(w.copies)]
    decided = [(p.slot, p.copy) for p in plan.placed] + [(r.slot, r.copy) for r in plan.refused]
    assert sorted(decided) == sorted(asked)
    by_name = {h.name: h for h in hosts}
    for failing in by_name:
        moved = [p for p in plan.placed if p.host == failing and not p.rpc]
        for p in moved:
            for name in p.spares:
                assert name != failing
                assert by_name[name].kind == by_name[failing].kind
        # with one host gone, everything that fails over lies on its spare beside what was there, on the same devices
        after = [replace(p, host=p.spares[0]) for p in moved if p.spares]
        stays = [p for p in plan.placed if p.host != failing]
        assert over(Plan((*stays, *after)), hosts) == []


@EXAMPLES
@given(fleets(1, 4), machines("another"), st.data())
def test_one_more_host_touches_nothing_that_has_its_place_and_spare(
    hosts: list[HostCapacity], another: HostCapacity, data: st.DataObject
) -> None:
    wishes = [replace(w, failover=True) for w in data.draw(slot_wishes([h.name for h in hosts])) if w.host]
    before = planned(hosts, wishes)
    after = places(planned([*hosts, another], wishes, before))
    for key, placed in places(before).items():
        now = after[key]
        assert replace(now, spares=()) == replace(placed, spares=())
        assert now.spares == placed.spares or not placed.spares
