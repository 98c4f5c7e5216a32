"""What runs stays where it is: when placement moves it all the same, reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.fleet.place import SPEED_WORTH_A_MOVE, WORTH_A_MOVE, Wish, place
from roost.fleet.plan import GpuCapacity, HostCapacity
from tests.support.fleets import GIB, MIB, MODELS, SHAPES, FakeEstimator, gpu, host, model, only, planned


def test_what_runs_stays_unless_the_gain_is_worth_the_move() -> None:
    hosts = [host("h", 8)]
    before = planned(hosts, [Wish("main")], models=(model("tiny", main=50),))
    little = (model("tiny", main=50), model("small", main=int(50 * WORTH_A_MOVE)))
    assert only(planned(hosts, [Wish("main")], before, little)).model == "tiny"
    enough = (model("tiny", main=50), model("small", main=int(50 * WORTH_A_MOVE) + 1))
    plan = planned(hosts, [Wish("main")], before, enough)
    assert only(plan).model == "small"
    assert "instead of tiny:Q4_K_M on h" in plan.explanation[0]


def test_what_runs_moves_to_a_faster_host_only_if_it_is_much_faster() -> None:
    wish = Wish("main", model="small")
    before = planned([host("a", 8, gbs=40)], [wish])
    assert only(planned([host("a", 8, gbs=40), host("b", 8, gbs=40 * SPEED_WORTH_A_MOVE)], [wish], before)).host == "a"
    assert only(planned([host("a", 8, gbs=40), host("b", 8, gbs=60)], [wish], before)).host == "b"


def busy(name: str, gib: float, *gpus: GpuCapacity, gbs: float) -> HostCapacity:
    return replace(host(name, gib, *gpus, gbs=gbs), bandwidth_most_gbs=3 * gbs)


def test_equal_machines_with_different_figures_keep_what_they_run() -> None:
    wish = Wish("main", model="small")
    before = planned([host("a", 8, gbs=19.5)], [wish])
    assert only(planned([host("a", 8, gbs=19.5), host("b", 8, gbs=24)], [wish], before)).host == "a"


def test_a_figure_of_a_busy_machine_is_no_reason_to_move_what_runs_there() -> None:
    wish, a = Wish("main", model="small"), busy("a", 8, gbs=17)
    before = planned([a], [wish])
    assert only(planned([a, host("b", 8, gbs=30)], [wish], before)).host == "a"
    assert only(planned([a, host("b", 8, gbs=70)], [wish], before)).host == "b", "faster than a can be"
    assert only(planned([a, host("b", 8, gpu(0, 8))], [wish], before)).host == "b"


def test_where_graphics_share_the_memory_its_bounds_count_and_on_a_card_they_do_not() -> None:
    wish = Wish("main", model="small")
    shared = replace(gpu(0, 8, gbs=17, integrated=True), bandwidth_most_gbs=51)
    a, faster = busy("a", 10, shared, gbs=17), host("b", 10, gpu(0, 8, gbs=40, integrated=True))
    before = planned([a], [wish])
    assert only(before).split.gpus == (0,)
    assert only(planned([a, faster], [wish], before)).host == "a"
    a = busy("a", 8, gpu(0, 8), gbs=300)
    before = planned([a], [wish])
    quick = replace(gpu(0, 8), bandwidth_gbs=2 * a.gpus[0].bandwidth_gbs)
    assert only(planned([a, host("b", 8, quick)], [wish], before)).host == "b", "a card's own speed"


def test_a_guess_is_no_reason_to_move_there() -> None:
    wish, a = Wish("main", model="small"), host("a", 8, gbs=24)
    before = planned([a], [wish])
    guessed = replace(host("b", 8, gbs=40), bandwidth_least_gbs=13, bandwidth_most_gbs=120)
    assert only(planned([a, guessed], [wish], before)).host == "a"


def test_what_stays_counts_as_it_is_planned_whatever_else_moves() -> None:
    wishes = [Wish("main", model="small", gpu="none"), Wish("router", model="router")]
    a = busy("a", 16, gbs=40)
    before = planned([a], wishes)
    card = host("c", 3, gpu(0, 6, gbs=300), gbs=10)
    after = {p.slot: p.host for p in planned([a, card], wishes, before).placed}
    assert after == {"main": "a", "router": "c"}


def test_a_move_that_gains_takes_no_other_along() -> None:
    wishes = [Wish("main", model="small", gpu="none"), Wish("router", model="router")]
    a, d, card = busy("a", 16, gbs=17), host("d", 8, gbs=21), host("c", 3, gpu(0, 6, gbs=900), gbs=10)
    before = planned([a], wishes)
    after = {p.slot: p.host for p in planned([a, d, card], wishes, before).placed}
    assert after == {"main": "a", "router": "c"}
    copies = [Wish("main", model="small", copies=2)]
    two = [busy("a", 8, gbs=20), host("b", 8, gbs=20)]
    before = planned(two, copies)
    assert {p.host for p in before.placed} == {"a", "b"}
    assert {p.host for p in planned([*two, host("c", 8, gbs=60)], copies, before).placed} == {"a", "c"}


def test_one_that_lies_on_its_card_in_part_gets_more_layers_when_there_is_room() -> None:
    wish = Wish("main", model="huge", context_size=2048)
    before = planned([host("a", 64, gpu(0, 8), gbs=20)], [wish])
    (less,) = before.placed
    (now,) = planned([host("a", 64, gpu(0, 32), gbs=20)], [wish], before).placed
    assert now.split.total > 2 * less.split.total > 0


def test_a_changed_wish_is_followed() -> None:
    hosts = [host("h", 8)]
    before = planned(hosts, [Wish("main", model="small", context_size=8192)])
    after = planned(hosts, [Wish("main", model="small", context_size=4096)], before)
    assert only(after).settings.context_size == 4096
    assert "stays with new settings" in after.explanation[0]


def test_contexts_make_room_for_a_new_slot() -> None:
    hosts = [host("h", 1, gpu(0, 8), tier="sweet")]
    before = planned(hosts, [Wish("main", model="middle")])
    assert only(before).settings.context_size == 16384
    after = planned(hosts, [Wish("main", model="middle"), Wish("memory", model="small")], before)
    assert after.refused == ()
    assert {p.slot: p.settings.context_size for p in after.placed}["main"] < 16384


def test_a_better_estimate_changes_nothing_that_runs_and_a_worse_one_is_taken() -> None:
    hosts, wish = [host("h", 8)], Wish("main", model="small", context_size=4096)
    before = planned(hosts, [wish])
    smaller = {**SHAPES, "small": replace(SHAPES["small"], weights=GIB)}
    fewer = place(hosts, MODELS, [wish], FakeEstimator(smaller), before)
    assert fewer.placed == before.placed
    larger = {**SHAPES, "small": replace(SHAPES["small"], weights=3 * GIB)}
    (now,) = place(hosts, MODELS, [wish], FakeEstimator(larger), before).placed
    assert now.estimate.on("CPU").weights == 3 * GIB
    much = {**SHAPES, "small": replace(SHAPES["small"], weights=9 * GIB)}
    assert place(hosts, MODELS, [wish], FakeEstimator(much), before).placed == ()


def test_what_one_token_reads_decides_the_speed_of_a_mixture_of_experts() -> None:
    mixture = replace(model("large", "potato"), active_share=0.1)
    placed = only(planned([host("h", 16, tier="potato", gbs=40)], [Wish("main")], models=(mixture,)))
    assert placed.tokens_per_s == pytest.approx(40e9 / (1.3 * GIB), abs=0.1)
    assert placed.estimate.on("CPU").total > 13 * GIB + 96 * MIB
