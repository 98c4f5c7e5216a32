"""From a host's slots and catalogue to slots that say everything, and back from the file that keeps the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from roost.fleet.figures import header_figures
from roost.fleet.fleet_plan import changed_slots, device_uses, differences, fleet_wishes, read_hosts
from roost.fleet.host_plan import (
    FromHub,
    host_planner,
    memory_pools,
    need_placed,
    reach_of,
    resolved_slots,
    with_shape,
)
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.fleet.plan_file import document_of, read_plan
from roost.fleet.site_wish import SlotWish
from roost.hosts.facts import facts_from
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.estimate.beside import WithFiles, beside_bytes
from roost.models.footprint import LayerSplit, ServerSettings
from roost.models.model_slots import ModelSlot, parse_slots
from roost.models.obtainable import Reach
from roost.models.schema import ListedDownload
from roost.ops.errors import RoostError
from tests.support.fleets import gpu, host
from tests.unit.hosts.records import record

ROOT = Path(__file__).parents[3]
ANY = Reach()
NONE = Reach(hub_problem="models_from_hub is no")
DEFAULT = [{"slot": "main", "parallel": 2, "cache_ram_mib": 256, "temperature": None}]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(ROOT / "group_vars/models.yaml", lock=Path("/nonexistent"), custom={})


def plan_of(
    machine: HostCapacity, entries: object, catalogue: Catalogue, reach: Reach, before: Plan | None = None
) -> Plan:
    slots, optional = with_shape(parse_slots(entries), machine.tier)
    return host_planner(machine, catalogue, reach, present=before)(slots, optional)


@pytest.mark.parametrize(
    "machine",
    [host("h", 0.88), host("h", 22, tier="sweet"), host("h", 14, gpu(0, 23)), host("h", 60, gpu(0, 79))],
    ids=["1500 MiB", "processor", "power", "beast"],
)
def test_without_a_hub_every_machine_gets_the_embedded_model_as_ever(
    machine: HostCapacity, catalogue: Catalogue
) -> None:
    slots, _ = with_shape(parse_slots(DEFAULT), machine.tier)
    (wish,) = resolved_slots(plan_of(machine, DEFAULT, catalogue, NONE), slots, catalogue)
    found = SlotWish.model_validate(wish)
    assert (found.slot, found.model) == ("main", "smollm2-135m-instruct")
    assert (found.context_size, found.parallel, found.cache_ram_mib) == (8192, 2, 256)
    if not machine.gpus:
        assert found.gpus == []


def test_with_a_hub_a_card_gets_the_models_of_its_tier(catalogue: Catalogue) -> None:
    plan = plan_of(host("h", 14, gpu(0, 23)), DEFAULT, catalogue, ANY)
    assert [p.slot for p in plan.placed] == ["main", "router", "specialist"]
    assert len({p.model for p in plan.placed}) == 3
    assert all(p.split.gpus == (0,) for p in plan.placed)


def test_who_names_a_model_decides_how_many_there_are(catalogue: Catalogue) -> None:
    named = [{"slot": "main", "model": "qwen3-8b:Q8_0", "context_size": 16384}]
    machine = host("h", 14, gpu(0, 23))
    plan = plan_of(machine, named, catalogue, NONE)
    slots = parse_slots(named)
    (wish,) = resolved_slots(plan, slots, catalogue)
    assert (wish["model"], wish["context_size"], wish["gpus"]) == ("qwen3-8b:Q8_0", 16384, [0])
    found = SlotWish.model_validate(wish)
    assert found.memory["host"] < 2 << 30
    assert 8 << 30 < found.memory["GPU0"] <= memory_pools(machine)["GPU0"]


def test_the_projector_of_a_vision_model_is_counted(catalogue: Catalogue) -> None:
    name = "qwen3-vl-8b-instruct"
    entry = catalogue.entries[name]
    assert entry.projector is not None
    file = entry.projector.file.model_copy(update={"bytes": 700 << 20, "sha256": "0" * 64})
    sized = entry.model_copy(update={"projector": entry.projector.model_copy(update={"file": file})})
    known = header_figures(catalogue.model_copy(update={"entries": {**catalogue.entries, name: sized}})).best
    assert isinstance(known, WithFiles)
    settings, split = ServerSettings(4096), LayerSplit((0,), (known.layers(name, "Q4_K_M"),))
    for device in ("GPU0", "CPU"):
        bare = known.estimator.estimate(name, "Q4_K_M", settings, split).on(device).total
        assert known.estimate(name, "Q4_K_M", settings, split).on(device).total - bare == 700 << 20
    assert known.estimate(name, "Q4_K_M", settings, LayerSplit()).on("CPU").other >= 700 << 20


def test_adapters_of_a_slot_are_counted_and_no_others(catalogue: Catalogue, tmp_path: Path) -> None:
    name, machine = "qwen3-8b", host("h", 14, gpu(0, 23))
    file = {"name": "poet.gguf", "bytes": 300 << 20, "sha256": "1" * 64}
    poet = ListedDownload.model_validate({"file": file, "sources": [{"kind": "path", "path": "/x"}]})
    entry = catalogue.entries[name].model_copy(update={"adapters": {"poet": poet}})
    adapted = catalogue.model_copy(update={"entries": {**catalogue.entries, name: entry}})

    def planned(adapters: list[str]) -> Placed:
        slots = parse_slots([{"slot": "main", "model": name, "context_size": 16384, "adapters": adapters}])
        return host_planner(machine, adapted, ANY, models_dir=tmp_path)(slots).placed[0]

    bare, adapted_one = planned([]), planned(["poet"])
    assert (bare.settings.adapters, adapted_one.settings.adapters) == ((), ("poet",))
    for device in ("CPU", "GPU0"):
        assert adapted_one.estimate.on(device).total == bare.estimate.on(device).total + (300 << 20)


def test_an_adapter_that_is_a_file_is_looked_at(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with (tmp_path / "own/poet.gguf").open("wb") as file:
        file.truncate(3 << 20)
    assert beside_bytes(catalogue, "qwen3-8b", ["own/poet.gguf", "own/none.gguf"], tmp_path) == 3 << 20
    assert beside_bytes(catalogue, "qwen3-8b", ["own/poet.gguf"], None) == 0


def test_a_refusal_fails_with_what_would_have_to_change(catalogue: Catalogue) -> None:
    named = [{"slot": "main", "model": "qwen3-8b:Q8_0", "context_size": 32768, "parallel": 4}]
    plan = plan_of(host("h", 2, gpu(0, 4)), named, catalogue, ANY)
    with pytest.raises(RoostError, match="Not every slot can be placed") as failed:
        need_placed(plan)
    assert "more graphics memory" in failed.value.fix


def test_unknown_models_and_paths_say_what_to_do(catalogue: Catalogue) -> None:
    with pytest.raises(RoostError, match="no model 'qwen9'"):
        plan_of(host("h", 8), [{"slot": "main", "model": "qwen9"}], catalogue, ANY)
    with pytest.raises(RoostError, match=r"names the file /x\.gguf") as failed:
        plan_of(host("h", 8), [{"slot": "main", "path": "/x.gguf"}], catalogue, ANY)
    assert "roost models add /x.gguf" in failed.value.fix


def test_what_a_choice_may_fetch(catalogue: Catalogue, tmp_path: Path) -> None:
    def problem(from_hub: FromHub, mirror: str = "") -> str:
        nowhere = tmp_path / "none"
        found = reach_of(
            catalogue, models_dir=nowhere, cache_dir=nowhere, offline_dir="", from_hub=from_hub, mirror=mirror
        )
        return found.hub_problem

    assert problem("yes") == ""
    assert problem("auto", "https://mirror.example") == ""
    assert "HF_ENDPOINT" in problem("auto")
    assert problem("no", "https://mirror.example") == "models_from_hub is no"


def test_a_kept_plan_is_read_back_and_keeps_everything(catalogue: Catalogue, tmp_path: Path) -> None:
    machine = host("h", 14, gpu(0, 23), gpu(1, 23))
    plan = plan_of(machine, DEFAULT, catalogue, ANY)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document_of(plan)))
    kept = read_plan(file)
    assert kept is not None
    assert kept.placed == plan.placed
    again = plan_of(machine, DEFAULT, catalogue, ANY, kept)
    assert document_of(again) == document_of(plan)
    assert differences(kept, again) == []


@pytest.mark.parametrize("text", ["", "{", '{"placed": 3}', '{"placed": [{"slot": "main"}]}'])
def test_a_plan_that_cannot_be_read_counts_as_none(text: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    assert read_plan(file) is None
    assert read_plan(tmp_path / "none") is None


def test_differences_in_words(catalogue: Catalogue) -> None:
    machine = host("h", 22, tier="sweet")
    before = plan_of(machine, DEFAULT, catalogue, NONE)
    after = plan_of(machine, DEFAULT, catalogue, ANY, before)
    lines = differences(before, after)
    assert lines[0].startswith("main: smollm2-135m-instruct:Q4_1, 2 x 8,192 tokens, processor -> ")
    assert any(line.startswith("router: new, ") for line in lines)
    assert differences(after, before)[-1].startswith("router: gone, was ")
    assert sum(use.planned for use in device_uses(after, [machine])) > 0


# --- Recorded fleets --------------------------------------------------------------------------------------------


def document(name: str) -> dict[str, object]:
    return {"facts": facts_from(record(name)).as_dict(), "bandwidth": None}


def test_recorded_machines_become_hosts(tmp_path: Path) -> None:
    one, more = tmp_path / "one.json", tmp_path / "more.json"
    one.write_text(json.dumps({**document("nvidia-t4"), "domain": "rack"}))
    more.write_text(json.dumps([document("nvidia-t4"), document("raspberry-pi-5")]))
    hosts = read_hosts([one, more])
    assert len({h.name for h in hosts}) == 3
    assert [h.domain for h in hosts] == ["rack", "", ""]
    assert hosts[0].gpus == hosts[1].gpus


@pytest.mark.parametrize("text", [None, "no json", "{}", '{"facts": {"hostname": 3}}', "[3]"])
def test_a_file_that_describes_no_machine_is_bad_input(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RoostError) as failed:
        read_hosts([file])
    assert failed.value.exit_code == 2
    assert str(file) in failed.value.message


def test_slots_as_if_they_said_something_else() -> None:
    slots = parse_slots(DEFAULT)
    found = changed_slots(slots, ["main.model=qwen3-8b", "main.gpu=[0, 1]", "vision.context_size=8192"])
    assert found[0] == slots[0].model_copy(update={"model": "qwen3-8b", "gpu": [0, 1]})
    assert found[1] == ModelSlot(slot="vision", context_size=8192)


@pytest.mark.parametrize("change", ["main", "main=3", "main.nonsense=3", "main.parallel=many", "main.gpu=[0"])
def test_a_change_that_makes_no_sense_is_bad_input(change: str) -> None:
    with pytest.raises(RoostError) as failed:
        changed_slots(parse_slots(DEFAULT), [change])
    assert failed.value.exit_code == 2


def test_slots_of_a_fleet(catalogue: Catalogue) -> None:
    hosts = [host("a", 2), host("b", 8, gpu(0, 23))]
    own = fleet_wishes(parse_slots(DEFAULT), hosts, catalogue)
    assert [(w.host, w.slot, w.optional) for w in own] == [
        ("a", "main", False), ("b", "main", False), ("b", "router", True), ("b", "specialist", True),
    ]  # fmt: skip
    (anywhere,) = fleet_wishes(parse_slots(DEFAULT), hosts, catalogue, copies=3)
    assert anywhere == replace(own[0], host="", copies=3)
