"""What a machine could serve beyond the embedded model: told only where nobody decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from roost.fleet.better_plan import better_plan
from roost.fleet.host_plan import FromHub, host_planner, with_shape
from roost.fleet.plan import HostCapacity
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.model_slots import parse_slots
from roost.models.obtainable import Reach
from tests.support.fleets import gpu, host

ROOT = Path(__file__).parents[3]
SHUT = Reach(hub_problem="models_from_hub is auto, and HF_ENDPOINT names no mirror")
DEFAULT = [{"slot": "main", "parallel": 2, "cache_ram_mib": 256}]
LARGE = host("h", 14, gpu(0, 23))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(ROOT / "group_vars/models.yaml", lock=Path("/nonexistent"), custom={})


def told(
    machine: HostCapacity, catalogue: Catalogue, reach: Reach, entries: object = DEFAULT, from_hub: FromHub = "auto"
) -> str:
    slots, optional = with_shape(parse_slots(entries), machine.tier)
    plan = host_planner(machine, catalogue, reach)(slots, optional)
    return better_plan(plan, machine, catalogue, reach, slots, optional, from_hub)


def test_a_better_plan_is_told_in_one_line(catalogue: Catalogue) -> None:
    words = told(LARGE, catalogue, SHUT)
    assert words.startswith("This machine could serve ")
    assert words.endswith(": sudo roost setup")
    assert "smollm2-135m-instruct" not in words
    assert "\n" not in words
    slots, optional = with_shape(parse_slots(DEFAULT), LARGE.tier)
    for placed in host_planner(LARGE, catalogue, Reach())(slots, optional).placed:
        assert placed.model in words


def test_nothing_is_told_where_the_operator_decided(catalogue: Catalogue) -> None:
    named = [{"slot": "main", "model": "smollm2-135m-instruct"}]
    assert told(LARGE, catalogue, SHUT, named) == ""
    assert told(LARGE, catalogue, SHUT, from_hub="no") == ""
    assert told(LARGE, catalogue, Reach(), from_hub="yes") == ""
    offline = replace(SHUT, here=frozenset({catalogue.get("smollm2-135m-instruct").file.sha256}))
    assert told(LARGE, catalogue, replace(offline, offline_dir=Path("/nonexistent"))) == ""


def test_nothing_is_told_where_nothing_is_better(catalogue: Catalogue) -> None:
    assert told(host("h", 0.5), catalogue, SHUT) == ""
