"""One plan for all machines of a fleet, and what each has to know of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roost.fleet import survey as surveys
from roost.fleet.fleet_file import FleetPlan, document_of, read_fleet_plan
from roost.fleet.place_fleet import Decided, MostOf, Share, place_fleet, slots_for_anywhere
from roost.fleet.plan import HostCapacity
from roost.fleet.plan_file import document_of as plan_document
from roost.fleet.site_wish import SlotWish
from roost.fleet.survey import Survey
from roost.models.catalogue import load_catalogue
from roost.models.custom_file import listed_entry
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.model_slots import parse_slots
from roost.models.obtainable import WhyNot
from roost.ops.errors import RoostError
from tests.support.fleets import FakeEstimator, Shape, gpu, host

CATALOGUE = Path(__file__).parents[3] / "group_vars/models.yaml"
MODEL = "smollm2-135m-instruct"
MAIN = {"slot": "main", "parallel": 2, "cache_ram_mib": 256}
CODING = {"slot": "coding", "model": MODEL, "context_size": 4096}
ROUTER = {"slot": "router", "model": MODEL, "context_size": 4096, "copies": 1}
NO_HUB = WhyNot("no model hub answers: models_from_hub is no", "let this machine reach it")
LISTED = load_catalogue(CATALOGUE, custom={})
HELD = LISTED.listed(MODEL).reference
MISSING = {model.reference: NO_HUB for model in LISTED.all() if model.name != MODEL}


def entry_of_a_file() -> dict[str, Any]:
    """A model file of a host as an entry; its hash is not known."""
    return listed_entry(LISTED.entries["qwen3-4b-instruct-2507"])


def looked_at(name: str, *slots: dict[str, Any], machine: HostCapacity | None = None) -> Survey:
    """What a machine says: by default one with 8 GiB and the embedded model, and no way to a hub."""
    found = replace(machine or host(name, 8), name=name)
    asked = tuple(parse_slots(list(slots or (MAIN,))))
    return Survey(f"the-{name}", found, asked, held=(HELD,), missing=MISSING)


def decide(*found: Survey, kept: FleetPlan | None = None, machines: Sequence[str] = ()) -> Decided:
    return place_fleet(found, CATALOGUE, machines or [survey.machine for survey in found], kept)


def again(decided: Decided, *found: Survey) -> list[Survey]:
    """The machines after a run: each keeps its share of the plan."""
    return [
        replace(survey, present=decided.shares[survey.machine].plan) if survey.machine in decided.shares else survey
        for survey in found
    ]


def where(decided: Decided) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Machine and spares by job."""
    return {decided.kept.job(p): (p.host, p.spares) for p in decided.kept.plan.placed}


def known(decided: Decided, name: str) -> Share:
    return decided.shares[f"the-{name}"]


def test_what_each_machine_has_for_itself_is_each_others_spare() -> None:
    decided = decide(*(looked_at(name) for name in "abc"))
    assert where(decided) == {f"roost-model-main-{name}": (name, ()) for name in "abc"}
    for name in "abc":
        (slot,) = known(decided, name).slots
        assert (slot["slot"], slot["model"], "spares" in slot, "number" in slot) == ("main", MODEL, False, False)
        assert known(decided, name).spare_models == []


def test_what_only_one_machine_serves_has_a_spare_and_the_files_come_from_where_they_are() -> None:
    other = "qwen3-8b"
    reference = LISTED.listed(other).reference
    coding = {"slot": "coding", "model": other, "context_size": 4096}
    main = {"slot": "main", "model": MODEL, "context_size": 4096}
    decided = decide(
        looked_at("a", main, machine=host("", 2)),
        looked_at("b", main, machine=host("", 16)),
        replace(looked_at("c", main, coding, machine=host("", 16)), held=(HELD, reference)),
    )
    assert where(decided)["roost-model-coding-c"] == ("c", ("b",))
    (slot,) = [s for s in known(decided, "c").slots if s["slot"] == "coding"]
    assert SlotWish.model_validate(slot).spares == ["b"]
    assert known(decided, "b").spare_models == [other]
    assert known(decided, "b").fetch_from == ["the-c"]
    assert [known(decided, name).lend for name in "abc"] == [False, False, True]
    assert known(decided, "a").spare_models == []


def test_copies_are_placed_once_in_the_fleet_each_with_a_spare() -> None:
    two = {**ROUTER, "copies": 2}
    decided = decide(*(looked_at(name, MAIN, two) for name in "abc"))
    placed = {job: at for job, at in where(decided).items() if "router" in job}
    assert set(placed) == {"roost-model-router-1", "roost-model-router-2"}
    assert len({machine for machine, _ in placed.values()}) == 2
    for machine, spares in placed.values():
        assert len(spares) == 1
        assert machine not in spares
    for name in "abc":
        own = {f"roost-model-router-{s['number']}" for s in known(decided, name).slots if s["slot"] == "router"}
        assert set(known(decided, name).elsewhere) == set(placed) - own


def test_the_same_machines_give_the_same_plan_and_the_same_document() -> None:
    found = [looked_at(name, MAIN, ROUTER, *([CODING] if name == "c" else [])) for name in "abc"]
    first = decide(*found)
    second = decide(*again(first, *found), kept=first.kept)
    assert document_of(second.kept) == document_of(first.kept)
    assert {m: s.slots for m, s in second.shares.items()} == {m: s.slots for m, s in first.shares.items()}
    assert all("stays; " in line for line in second.explanation)


def test_one_more_machine_changes_no_other_ones_share() -> None:
    found = [looked_at(name, MAIN, ROUTER, *([CODING] if name == "c" else [])) for name in "abc"]
    first = decide(*found)
    second = decide(*again(first, *found), looked_at("d", MAIN, ROUTER), kept=first.kept)
    for name in "abc":
        assert known(second, name).slots == known(first, name).slots
        assert plan_document(known(second, name).plan) == plan_document(known(first, name).plan)
    assert [slot["slot"] for slot in known(second, "d").slots] == ["main"]


def test_when_a_machine_leaves_its_copies_go_to_their_spares_and_nothing_else_moves() -> None:
    found = [looked_at(name, MAIN, ROUTER) for name in "abc"]
    first = decide(*found)
    ((gone, (spare,)),) = [at for job, at in where(first).items() if "router" in job]
    left = [survey for survey in again(first, *found) if survey.host.name != gone]
    second = decide(*left, kept=first.kept)
    assert where(second)["roost-model-router-1"][0] == spare
    others = {job: at for job, at in where(first).items() if "router" not in job and at[0] != gone}
    assert {job: at for job, at in where(second).items() if "router" not in job} == others
    assert any(f"its host {gone} is gone" in line for line in second.explanation)
    assert f"the-{gone}" not in second.kept.machines


def test_a_run_over_some_machines_moves_nothing_between_machines() -> None:
    found = [looked_at(name, MAIN, ROUTER, *([CODING] if name == "c" else [])) for name in "abc"]
    first = decide(*found)
    everyone = [survey.machine for survey in found]
    for some in (found[:1], found[1:2], found[2:], found[:2]):
        second = decide(*again(first, *some), kept=first.kept, machines=everyone)
        assert where(second) == where(first)
        for survey in some:
            assert second.shares[survey.machine].slots == first.shares[survey.machine].slots
        assert second.kept.machines == first.kept.machines


def test_a_machine_that_was_alone_keeps_what_runs_when_others_join() -> None:
    alone = decide(looked_at("a"))
    joined = decide(*again(alone, looked_at("a")), looked_at("b"), kept=None)
    (before,), (now,) = known(alone, "a").slots, known(joined, "a").slots
    assert now == before


def test_machines_that_contradict_each_other_are_told_so() -> None:
    with pytest.raises(RoostError, match="the-a and the-b say different things") as failed:
        slots_for_anywhere([looked_at("a", MAIN, ROUTER), looked_at("b", MAIN, {**ROUTER, "copies": 2})])
    assert "group fleet" in failed.value.fix
    with pytest.raises(RoostError, match="slot router"):
        decide(looked_at("a", MAIN, ROUTER), looked_at("b", {**ROUTER, "copies": 0}))


def test_a_file_that_only_lies_on_one_machine_runs_there_only() -> None:
    found = {"file-mine": entry_of_a_file()}
    mine = replace(looked_at("a", {"slot": "main"}), found=found, local=("file-mine",))
    decided = decide(mine, looked_at("b", {"slot": "main"}), looked_at("c"))
    assert where(decided)["roost-model-main-a"] == ("a", ())
    assert known(decided, "a").slots[0]["model"] == "file-mine"
    assert known(decided, "a").hashes == ["file-mine"]
    assert known(decided, "b").slots[0]["model"] != "file-mine"
    assert known(decided, "b").hashes == []


def test_only_machines_wired_alike_stand_in_for_graphics_processors() -> None:
    card = replace(gpu(0, 22), wiring="0000:01:00.0")
    elsewhere = replace(gpu(0, 22), wiring="0000:41:00.0")
    coding = {"slot": "coding", "model": "qwen3-8b", "context_size": 4096}
    small = {"slot": "main", "model": MODEL, "gpu": [0], "context_size": 4096}

    def spares(*others: HostCapacity) -> tuple[str, ...]:
        rest = [looked_at(f"o{n}", small, machine=other) for n, other in enumerate(others)]
        return where(decide(looked_at("a", coding, machine=host("", 30, card)), *rest))["roost-model-coding-a"][1]

    assert spares(host("", 30, card)) == ("o0",)
    assert spares(host("", 30, elsewhere)) == ()
    assert spares(host("", 30, elsewhere), host("", 30, card)) == ("o1",)
    assert spares(replace(host("", 30, card), kind="aarch64")) == ()


def test_what_no_single_machine_holds_is_refused_with_the_way_out() -> None:
    huge = {"slot": "coding", "model": "gpt-oss-120b", "context_size": 4096, "copies": 1}
    cards = [gpu(n, 22) for n in range(2)]
    with pytest.raises(RoostError, match="no machine holds it") as failed:
        decide(*(looked_at(name, MAIN, huge, machine=host("", 8, *cards)) for name in "abc"))
    assert "smaller model" in failed.value.fix


def test_the_most_that_an_engine_said_counts_for_all() -> None:
    class Said(FakeEstimator):
        def __init__(self, mib: int) -> None:
            super().__init__({})
            self.mib = mib

        def estimate(self, *_asked: object) -> Estimate:
            return Estimate((DeviceBytes(HOST, self.mib << 20),), "measured" if self.mib else "header")

    header = FakeEstimator({MODEL: Shape(100 << 20, 10, 1024)})
    figure = MostOf([Said(700), Said(0), Said(900)], header).estimate(MODEL, "Q8_0", ServerSettings(512), LayerSplit())
    assert (figure.origin, figure.on(HOST).total) == ("measured", 900 << 20)
    alone = MostOf([Said(0)], header).estimate(MODEL, "Q8_0", ServerSettings(512), LayerSplit())
    assert alone.origin == "header"


def test_the_kept_plan_and_a_survey_are_read_back(tmp_path: Path) -> None:
    found = replace(looked_at("a", MAIN, ROUTER), figures="{}")
    decided = decide(found, looked_at("b", MAIN, ROUTER))
    file = tmp_path / "fleet-plan.json"
    file.write_text(json.dumps(document_of(decided.kept)))
    kept = read_fleet_plan(file)
    assert kept is not None
    assert document_of(kept) == document_of(decided.kept)
    (full,) = again(decided, found)
    assert surveys.read_survey(json.loads(json.dumps(surveys.document_of(full)))).slots == full.slots
    file.write_text("{}}")
    assert read_fleet_plan(file) is None
    assert read_fleet_plan(tmp_path / "none") is None
    with pytest.raises(RoostError, match="not understood"):
        surveys.read_survey({"machine": "a"})
