"""What placement decides in cases that can be reckoned by hand, and what it says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roost.fleet.place import Wish, place, shape_of
from roost.fleet.plan import HostCapacity, Plan
from tests.support.fleets import GIB, MODELS, SHAPES, FakeEstimator, gpu, host, model, only, over, planned


def chosen(plan: Plan) -> dict[str, str]:
    return {p.slot: f"{p.model}:{p.quantisation}" for p in plan.placed}


# --- Tiers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (host("h", 2), {"main": "tiny:Q4_K_M"}),
        (host("h", 8, gpu(0, 5)), {"main": "small:Q4_K_M"}),
        (host("h", 8, gpu(0, 11)), {"main": "middle:Q4_K_M", "router": "router:Q4_K_M"}),
        (host("h", 8, gpu(0, 23)), {"main": "small:Q4_K_M", "router": "router:Q4_K_M", "specialist": "large:Q4_K_M"}),
        (
            host("h", 8, gpu(0, 79)),
            {"main": "large:Q4_K_M", "router": "router:Q4_K_M", "specialist": "huge:Q4_K_M"},
        ),
    ],
    ids=lambda value: value.tier if isinstance(value, HostCapacity) else "",
)
def test_a_tier_decides_how_many_models_a_host_has(machine: HostCapacity, expected: dict[str, str]) -> None:
    assert chosen(planned([machine], list(shape_of(machine)))) == expected


def test_what_is_not_available_is_not_chosen_and_one_model_then_does_all() -> None:
    models = tuple(
        m if m.model == "tiny" else replace(m, available=False, why_not="is on a hub", remedy="Allow it.")
        for m in MODELS
    )
    machine = host("h", 8, gpu(0, 23))
    plan = planned([machine], list(shape_of(machine, parallel=2)), models=models)
    assert chosen(plan) == {"main": "tiny:Q4_K_M"}
    assert plan.refused == ()
    assert "router: no model of its own on h, since no further one is allowed and fits; main does its work" in (
        plan.explanation
    )


def test_a_named_slot_without_an_available_model_is_refused_with_the_way_out() -> None:
    models = (replace(model("v", "potato", vision=50), available=False, why_not="is on a hub", remedy="Allow it."),)
    (refused,) = planned([host("h", 8)], [Wish("vision")], models=models).refused
    assert refused.reason == "no model for vision is here: v:Q4_K_M is on a hub"
    assert refused.remedy == "Allow it."


def test_main_and_router_differ_when_another_fits() -> None:
    models = (model("tiny", main=90, router=90), model("small", main=50, router=50))
    plan = planned([host("h", 16)], [Wish("main"), Wish("router")], models=models)
    assert chosen(plan) == {"main": "tiny:Q4_K_M", "router": "small:Q4_K_M"}
    plan = planned([host("h", 1)], [Wish("main"), Wish("router")], models=models)
    assert chosen(plan) == {"main": "tiny:Q4_K_M", "router": "tiny:Q4_K_M"}


def test_a_slow_model_is_not_chosen_and_the_context_grows_into_what_is_left() -> None:
    placed = only(planned([host("h", 30, tier="power", gbs=40)], [Wish("main")]))
    assert placed.model == "middle"  # large would read 13 GiB a token at 40 GB/s: 2.9 tokens/s
    assert placed.settings.context_size == 32768
    assert placed.tokens_per_s == pytest.approx(40e9 / (5 * GIB), abs=0.1)
    assert "on the processor; at most 7 tokens/s" in placed.reason


# --- Explicit choices, graphics processors ----------------------------------------------------------------------


def test_what_is_named_wins_over_tier_speed_and_quality() -> None:
    wish = Wish("main", model="huge", context_size=2048, gpu="none")
    placed = only(planned([host("h", 64, gpu(0, 5), gbs=40)], [wish]))
    assert (placed.model, placed.settings.context_size, placed.split.total) == ("huge", 2048, 0)
    assert placed.reason == "named by the slot; on the processor, as the slot says; at most 1 tokens/s"


def test_small_graphics_processors_share_a_model_by_their_memory() -> None:
    machine = host("h", 8, gpu(0, 5), gpu(1, 10), tier="power")
    placed = only(planned([machine], [Wish("main", model="large", context_size=4096)]))
    assert placed.split.gpus == (0, 1)
    assert placed.split.total == 40
    assert placed.split.gpu_layers[1] > placed.split.gpu_layers[0]
    assert "since no single one holds it" in placed.reason


@pytest.mark.parametrize("wish", [Wish("main"), Wish("main", model="small")], ids=["chosen", "named"])
def test_a_model_that_loses_its_graphics_processor_is_said_to(wish: Wish) -> None:
    with_card, without = host("h", 32, gpu(0, 8), tier="sweet"), host("h", 32, tier="sweet")
    before = planned([with_card], [wish])
    lost = planned([without], [wish], before)
    assert only(before).split.total
    assert not only(before).slowed
    assert only(lost).slowed
    assert "the graphics processors that it lay on are not usable any more" in only(lost).reason
    assert planned([without], [wish], lost).placed == lost.placed  # said until it changes, and nothing else does
    assert not only(planned([without], [replace(wish, gpu="none")], lost)).slowed  # that is how it is accepted
    back = only(planned([with_card], [wish], lost))
    assert back.split.total
    assert not back.slowed


def test_a_model_that_is_taken_off_its_graphics_processor_on_purpose_is_not_lost() -> None:
    with_card = host("h", 32, gpu(0, 8), tier="sweet")
    before = planned([with_card], [Wish("main", model="small")])
    assert not only(planned([with_card], [Wish("main", model="small", gpu="none")], before)).slowed


def test_slices_of_a_card_share_no_model() -> None:
    machine = host("h", 2, gpu(0, 8, alone=True), gpu(1, 8, alone=True), tier="power")
    (refused,) = planned([machine], [Wish("main", model="large", quantisation="Q4_K_M")]).refused
    assert "graphics memory" in refused.remedy


def test_a_named_model_that_fits_partly_is_split_and_the_plan_says_so() -> None:
    machine = host("h", 16, gpu(0, 8))
    placed = only(planned([machine], [Wish("main", model="large", context_size=4096)]))
    assert 0 < placed.split.total < 40
    assert f"{placed.split.total} of 40 layers on GPU0, the rest on the processor, since no more fit: slower" in (
        placed.reason
    )


@pytest.mark.parametrize("roles", [("router", "memory"), ("main", "main"), ("memory", "router")])
def test_a_small_server_does_not_take_the_only_card_that_holds_a_large_one(roles: tuple[str, str]) -> None:
    """Found by hypothesis: a spare was refused what its plan had kept for it, when the smaller one chose first."""
    machine = host("h", 1, gpu(0, 2, gbs=200), gpu(1, 4, gbs=200), gpu(2, 8, gbs=200, alone=True), gbs=20)
    wishes = [
        Wish("router", roles[0], "router", "Q4_K_M", context_size=32768),
        Wish("memory", roles[1], "middle", "Q4_K_M", context_size=4096),
    ]
    plan = place([machine], MODELS, wishes, FakeEstimator(SHAPES))
    assert plan.refused == ()
    assert over(plan, [machine]) == []
    assert {p.slot: p.split.gpus for p in plan.placed} == {"router": (2,), "memory": (0, 1)}


def test_what_fits_in_all_but_not_as_it_is_spread_is_refused_as_that() -> None:
    machine = host("h", 0.1, gpu(0, 2.7), gpu(1, 2.65))  # 5.35 GiB; the model needs 5.31 on one, 5.38 on two
    plan = place([machine], MODELS, [Wish("main", model="middle", context_size=2048)], FakeEstimator(SHAPES))
    (refused,) = plan.refused
    assert "not as that is spread over its graphics processors" in refused.reason
    assert "tokens/s" not in refused.reason + refused.remedy


def test_no_silent_fall_to_the_processor() -> None:
    machine = host("h", 16, gpu(0, 0.2))
    (refused,) = planned([machine], [Wish("main", model="large", context_size=4096)]).refused
    assert "does not fit the graphics memory that is left on h" in refused.reason
    assert "gpu: none, which runs it on the processor, slowly" in refused.remedy


def test_an_automatic_choice_without_room_on_the_card_says_where_it_runs() -> None:
    machine = host("h", 16, gpu(0, 0.1), tier="potato")
    placed = only(planned([machine], [Wish("main")]))
    assert placed.split.total == 0
    assert "on the processor, for its graphics processors have no room" in placed.reason


def test_memory_of_an_integrated_graphics_processor_is_the_machines() -> None:
    machine = host("h", 8, gpu(0, 7, integrated=True), tier="sweet")
    plan = planned([machine], [Wish("main", model="middle"), Wish("memory", model="small", gpu="none")])
    # 5 GiB and 2 GiB of weights, and contexts: together they fill the 8 GiB
    assert {p.slot for p in plan.placed} == {"main", "memory"}
    plan = planned(
        [replace(machine, free_bytes=6 * GIB)], [Wish("main", model="middle"), Wish("memory", model="small")]
    )
    assert [r.slot for r in plan.refused] == ["memory"]


def test_a_processor_that_is_not_there() -> None:
    (refused,) = planned([host("h", 8, gpu(0, 8))], [Wish("main", model="small", gpu=(3,))]).refused
    assert refused.reason == "the slot names gpu [3]; there is GPU0"


# --- Refusals ---------------------------------------------------------------------------------------------------


def test_a_refusal_says_how_much_is_missing_and_what_else_would_fit() -> None:
    wish = Wish("main", model="middle", quantisation="Q8_0", context_size=32768)
    machine = host("h", 1, gpu(0, 9.5))
    (refused,) = planned([machine], [wish]).refused
    # 10 GiB of weights, 4 GiB of context, 64 MiB beside: 14.0625 GiB of 9.5
    assert refused.reason == "middle:Q8_0 with 1 x 32,768 tokens does not fit the graphics memory that is left on h"
    assert refused.remedy == "4.6 GiB more graphics memory, or the quantisation Q4_K_M."
    (refused,) = planned([machine], [replace(wish, quantisation="Q4_K_M", parallel=2, gpu=(0,))]).refused
    assert refused.remedy == (
        "3.6 GiB more graphics memory, or a context of 16,384 instead of 32,768, or parallel 1 instead of 2."
    )


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (Wish("main", host="nowhere"), "there is no host nowhere"),
        (Wish("main", model="unheard"), "no model unheard is known"),
        (Wish("embedding"), "the catalogue has no model for embedding"),
    ],
)
def test_other_refusals(wish: Wish, reason: str) -> None:
    (refused,) = planned([host("h", 8)], [wish]).refused
    assert refused.reason == reason
    assert refused.remedy


def test_a_model_of_unknown_shape_is_refused_when_named() -> None:
    (refused,) = planned([host("h", 8)], [Wish("main", model="new")], models=(model("new"),)).refused
    assert refused.reason == "nothing is known of the shape of new:Q4_K_M"


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="hosts named twice: h"):
        planned([host("h", 8), host("h", 4)], [])


# --- Several hosts ----------------------------------------------------------------------------------------------


def test_copies_are_spread_over_failure_domains() -> None:
    hosts = [host(f"h{i}", 8, domain="a" if i < 3 else "b") for i in range(5)]
    plan = planned(hosts, [Wish("main", copies=2)])
    assert {p.host[1] < "3" for p in plan.placed} == {True, False}
    big = [host(f"h{i}", 8, domain="a" if i < 8 else "b") for i in range(12)]
    plan = planned(big, [Wish("main", copies=2)])
    assert {int(p.host[1:]) < 8 for p in plan.placed} == {True, False}


def test_a_spare_is_in_another_failure_domain_where_there_is_one() -> None:
    hosts = [host("a1", 8, domain="a"), host("a2", 8, domain="a"), host("b1", 4, domain="b")]
    placed = only(planned(hosts, [Wish("main", model="small")]))
    assert placed.host.startswith("a")
    assert placed.spares == ("b1",)


def test_a_model_that_no_host_holds_is_split_over_as_few_as_hold_it() -> None:
    hosts = [host("a", 4, gpu(0, 20)), host("b", 4, gpu(0, 24)), host("c", 4, gpu(0, 8))]
    placed = only(planned(hosts, [Wish("main", model="huge", context_size=2048)]))
    assert placed.host == "b"
    assert [name for name, _ in placed.rpc] == ["a"]
    assert placed.split.total + placed.rpc[0][1] == 80
    assert "no single host holds it: 80 layers over 2 hosts" in placed.reason
    assert {d.device for d in placed.estimate.devices} == {"CPU", "GPU0", "a/GPU0"}
    again = planned(hosts, [Wish("main", model="huge", context_size=2048)], Plan((placed,)))
    assert again.placed == (placed,)
    assert "stays" in again.explanation[0]


def test_roles_are_served_before_any_gets_a_better_model() -> None:
    hosts = [host("h", 1, gpu(0, 11), tier="sweet")]
    plan = planned(hosts, [Wish("main"), Wish("router"), Wish("specialist")])
    assert len(plan.placed) == 3
