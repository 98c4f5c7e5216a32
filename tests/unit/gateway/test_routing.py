"""Names of models to endpoints, as data."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.engines.base import State
from roost.gateway.routing import View, resolve, substitutes

READY = View("main@a", "main", State.READY, ("tiny",), slots=2)
LOADING = View("main@b", "main", State.LOADING, ("tiny",), reason="it is loading its model")
NAMELESS = View("coder@c", "coder", State.LOADING)
CODER = View("coder@d", "coder", State.READY, ("coder-7b", "coder-7b-lora"))


@pytest.mark.parametrize(
    ("name", "views", "expected"),
    [
        ("auto", [READY, CODER], {"main@a": "tiny"}),
        ("main", [READY, CODER], {"main@a": "tiny"}),
        ("tiny", [READY, LOADING], {"main@a": "tiny"}),
        ("coder", [READY, CODER], {"coder@d": "coder-7b"}),
        ("coder-7b-lora", [CODER], {"coder@d": "coder-7b-lora"}),
        ("tiny", [LOADING], {}),
    ],
)
def test_a_name_leads_to_the_ready_endpoints_that_have_it(
    name: str, views: list[View], expected: dict[str, str]
) -> None:
    assert resolve(name, views, {}, settled=True).ready == expected


@pytest.mark.parametrize(
    ("name", "views", "remembered", "settled", "known"),
    [
        ("nope", [READY, CODER], {}, True, False),
        ("nope", [READY, NAMELESS], {}, True, True),  # the nameless one may turn out to be it
        ("nope", [], {}, False, True),  # nobody has said yet which endpoints there are
        ("tiny", [LOADING], {}, True, True),
        ("tiny", [], {"tiny": "main"}, True, True),  # it is moving
        ("coder", [], {"coder-7b": "coder"}, True, True),
        ("auto", [], {}, True, True),
        ("main", [], {}, True, True),
        ("tiny", [], {}, True, False),
    ],
)
def test_waiting_makes_sense_only_for_what_may_come(
    name: str, views: list[View], remembered: dict[str, str], *, settled: bool, known: bool
) -> None:
    route = resolve(name, views, remembered, settled=settled)
    assert route.ready == {}
    assert route.known is known


def test_the_reason_for_waiting_is_told() -> None:
    assert resolve("tiny", [LOADING], {}, settled=True).reason == "it is loading its model"
    assert resolve("auto", [], {}, settled=True).reason == "no model server is registered"


views_strategy = st.lists(
    st.builds(
        View,
        id=st.text("abc", min_size=1, max_size=3),
        slot=st.sampled_from(["main", "coder"]),
        state=st.sampled_from(State),
        models=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
        in_flight=st.integers(0, 5),
        slots=st.none() | st.integers(1, 4),
    ),
    max_size=6,
    unique_by=lambda view: view.id,
)


@given(views_strategy, st.sampled_from(["auto", "main", "coder", "x", "y", "z"]))
def test_only_ready_endpoints_that_offer_the_model_get_requests(views: list[View], name: str) -> None:
    route = resolve(name, views, {}, settled=True)
    by_id = {view.id: view for view in views}
    for endpoint, model in route.ready.items():
        assert by_id[endpoint].state is State.READY
        assert model in by_id[endpoint].models


BIG = View("big@e", "big", State.COLD, ("big-70b",), job="roost-model-big", memory=40)
MIDDLE = View("middle@f", "middle", State.READY, ("middle-8b",), memory=8)
SMALL = View("small@g", "small", State.READY, ("small-1b",), memory=1)
EMBEDDING = View("embedding@h", "embedding", State.READY, ("words",), memory=1)
FLEET = [BIG, MIDDLE, SMALL, EMBEDDING]


@pytest.mark.parametrize(
    ("name", "order", "expected"),
    [
        ("big", {}, ["middle", "small"]),
        ("big-70b", {}, ["middle", "small"]),
        ("big-70b+adapter", {}, ["middle", "small"]),
        ("middle", {}, ["small"]),
        ("small", {}, []),
        ("big", {"big": ["small"]}, ["small"]),
        ("big-70b", {"big": ["small"]}, ["small"]),
        ("big-70b", {"big-70b": ["small", "embedding"], "big": ["middle"]}, ["small"]),
        ("big", {"big": []}, []),
        ("embedding", {"embedding": ["small"]}, []),
        ("words", {}, []),
        ("unknown", {}, []),
    ],
)
def test_who_may_stand_in(name: str, order: dict[str, list[str]], expected: list[str]) -> None:
    assert substitutes(name, FLEET, order) == expected


def test_a_cold_model_is_known_and_names_its_job() -> None:
    route = resolve("big-70b", FLEET, {}, settled=True)
    assert (route.ready, route.known, route.cold, route.state) == ({}, True, ("roost-model-big",), State.COLD)


def test_an_adapter_leads_to_the_servers_that_have_it() -> None:
    with_adapter = replace(MIDDLE, id="middle@i", adapters=("law",))
    for name in ("middle-8b+law", "middle+law"):
        route = resolve(name, [MIDDLE, with_adapter], {}, settled=True)
        assert (route.ready, route.adapter) == ({"middle@i": "middle-8b"}, "law")
    assert not resolve("middle-8b+other", [MIDDLE, with_adapter], {}, settled=True).known
    assert not resolve("small-1b+law", [SMALL, with_adapter], {}, settled=True).known


CLOUD = View("cloud@x", "cloud", State.READY, ("tiny", "vast"), by_name=True)


def test_what_lies_outside_the_fleet_is_used_by_its_name_only() -> None:
    assert set(resolve("vast", [READY, CLOUD], {}, settled=True).ready) == {"cloud@x"}
    assert set(resolve("tiny", [READY, CLOUD], {}, settled=True).ready) == {"main@a"}
    down = replace(READY, state=State.DOWN)
    assert not resolve("tiny", [down, CLOUD], {}, settled=True).ready
    assert not resolve("auto", [down, CLOUD], {}, settled=True).ready


def test_a_drained_endpoint_gets_nothing_and_an_ejected_one_what_nobody_else_can_take() -> None:
    other = replace(READY, id="main@z")
    assert set(resolve("auto", [replace(READY, drained=True), other], {}, settled=True).ready) == {"main@z"}
    assert set(resolve("auto", [replace(READY, ejected=True), other], {}, settled=True).ready) == {"main@z"}
    assert set(resolve("auto", [replace(READY, ejected=True)], {}, settled=True).ready) == {"main@a"}


@pytest.mark.parametrize("name", ["auto", "main", "embedding", "coder"])
def test_a_service_outside_gets_no_role_by_calling_a_model_so(name: str) -> None:
    outside = View("cloud", "cloud", State.READY, ("auto", "main", "embedding", "coder"), by_name=True)
    assert "cloud" not in resolve(name, [outside, LOADING, NAMELESS], {}, settled=True).ready
    assert resolve("cloud", [outside, LOADING], {}, settled=True).ready == {"cloud": "auto"}


def test_an_endpoint_outside_that_is_called_like_its_model_gives_that_model() -> None:
    outside = View("gpt", "gpt", State.READY, ("another", "gpt"), by_name=True)
    assert resolve("gpt", [outside, READY], {}, settled=True).ready == {"gpt": "gpt"}
