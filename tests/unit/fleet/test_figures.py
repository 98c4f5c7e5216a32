"""Plans made with what a host's engine said of its needs: used, told, and nothing that runs moves for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from roost.fleet.figures import Figures, host_figures, place_known
from roost.fleet.host_plan import host_planner, resolved_slots
from roost.fleet.place import Wish
from roost.fleet.plan import Placed, Plan
from roost.fleet.plan_file import document_of
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.estimate.measured import MeasuredKey, MeasuredStore
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, Origin, ServerSettings
from roost.models.model_slots import parse_slots
from roost.models.obtainable import Reach
from tests.support.fleets import GIB, MIB, MODELS, SHAPES, FakeEstimator, gpu, host

ROOT = Path(__file__).parents[3]
SMALL = "smollm2-135m-instruct"
NAMED = [{"slot": "main", "model": SMALL, "context_size": 8192, "parallel": 2, "cache_ram_mib": 256}]


@dataclass
class Known(FakeEstimator):
    """The made-up estimator, with `share` of its figures measured of one model."""

    model: str = "small"
    share: float = 1.0
    origin: Origin = "measured"

    def __init__(self, share: float, model: str = "small") -> None:
        super().__init__(SHAPES)
        self.share, self.model = share, model

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        found = super().estimate(model, quantisation, settings, split)
        if model != self.model:
            return found
        return Estimate(tuple(replace(d, weights=int(d.weights * self.share)) for d in found.devices), self.origin)


def planned(figures: Figures, wishes: Sequence[Wish], present: Plan | None = None, gib: float = 8) -> Plan:
    return place_known([host("h", gib)], MODELS, wishes, figures, present)


BY_HEADER = Figures(FakeEstimator(SHAPES), FakeEstimator(SHAPES))


def knowing(share: float, model: str = "small") -> Figures:
    return Figures(Known(share, model), FakeEstimator(SHAPES))


@pytest.mark.parametrize("share", [0.5, 0.97, 1.0, 1.009])
def test_figures_that_become_known_change_no_byte_of_what_is_kept(share: float) -> None:
    wish = Wish("main", model="small", context_size=4096)
    before = planned(BY_HEADER, [wish])
    after = planned(knowing(share), [wish], before)
    assert document_of(after) == document_of(before)
    (placed,) = after.placed
    assert placed.estimate.origin == "measured"
    assert placed.estimate.on(HOST).weights == int(2 * GIB * share)
    assert placed.planned == before.placed[0].estimate
    assert "measured when it ran" in after.explanation[-1]


def test_what_was_computed_far_too_low_is_put_right() -> None:
    wish = Wish("main", model="small", context_size=4096)
    before = planned(BY_HEADER, [wish])
    (placed,) = planned(knowing(1.5), [wish], before).placed
    assert placed.planned is None
    assert document_of(planned(knowing(1.5), [wish], before)) != document_of(before)
    assert planned(knowing(9), [wish], before).placed == ()


def test_an_optional_slot_is_not_added_only_because_less_was_measured() -> None:
    wishes = [Wish("main", model="middle", context_size=4096), Wish("memory", model="small", context_size=4096)]
    wishes[1] = replace(wishes[1], host="h", optional=True)
    wishes[0] = replace(wishes[0], host="h")
    before = planned(BY_HEADER, wishes, gib=7)
    assert [p.slot for p in before.placed] == ["main"]
    after = planned(knowing(0.2, "middle"), wishes, before, gib=7)
    assert document_of(after) == document_of(before)


def test_what_was_measured_makes_room_for_what_would_be_refused() -> None:
    main = Wish("main", model="middle", context_size=4096)
    before = planned(BY_HEADER, [main], gib=7)
    more = Wish("memory", model="small", context_size=4096)
    assert [r.slot for r in planned(BY_HEADER, [main, more], before, gib=7).refused] == ["memory"]
    after = planned(knowing(0.5, "middle"), [main, more], before, gib=7)
    assert after.refused == ()
    assert {p.slot: p.estimate.origin for p in after.placed} == {"main": "measured", "memory": "header"}


def test_without_anything_that_runs_the_best_figures_decide() -> None:
    wish = Wish("main", model="large", context_size=4096)
    assert planned(BY_HEADER, [wish], gib=12).placed == ()
    (placed,) = planned(knowing(0.7, "large"), [wish], gib=12).placed
    assert (placed.estimate.origin, placed.planned) == ("measured", None)


# --- The catalogue's models on a host ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(ROOT / "group_vars/models.yaml", lock=Path("/nonexistent"), custom={})


def _keep(folder: Path, catalogue: Catalogue, placed: Placed, origin: Origin, *, gpu_name: str = "") -> Estimate:
    """Keep what the engine said of a server, a little less than was planned."""
    model = catalogue.get(placed.model)
    less = tuple(replace(d, compute=max(0, d.compute - MIB)) for d in placed.estimate.devices)
    key = MeasuredKey("engine-1", model.file.sha256, placed.settings, placed.split, gpu_name)
    store = MeasuredStore(folder)
    store.keep(key, Estimate(less, origin))
    store.use("engine-1")
    return Estimate(less, origin)


@pytest.mark.parametrize("origin", ["oracle", "measured"])
def test_a_host_plans_with_what_its_engine_said(catalogue: Catalogue, tmp_path: Path, origin: Origin) -> None:
    machine, slots = host("h", 8), parse_slots(NAMED)

    def again(present: Plan | None) -> Plan:
        figures = host_figures(catalogue, tmp_path / "models", tmp_path, [])
        return host_planner(machine, catalogue, Reach(), figures=figures, present=present)(slots)

    first = again(None)
    assert [p.estimate.origin for p in first.placed] == ["header"]
    said = _keep(tmp_path, catalogue, first.placed[0], origin)
    second = again(first)
    assert second.placed[0].estimate == said
    assert document_of(second) == document_of(first)
    assert resolved_slots(second, slots, catalogue) == resolved_slots(first, slots, catalogue)
    assert again(None).placed[0].estimate == said


def test_figures_hold_for_the_engine_and_the_cards_that_are_there(catalogue: Catalogue, tmp_path: Path) -> None:
    machine, slots = host("h", 8, gpu(0, 8)), parse_slots(NAMED)

    def origin(names: Sequence[str]) -> str:
        figures = host_figures(catalogue, None, tmp_path, names)
        return host_planner(machine, catalogue, Reach(), figures=figures)(slots).placed[0].estimate.origin

    header = host_figures(catalogue, None, tmp_path, ["RTX 4090"])
    (placed,) = host_planner(machine, catalogue, Reach(), figures=header)(slots).placed
    assert placed.split.gpus == (0,)
    _keep(tmp_path, catalogue, placed, "measured", gpu_name="RTX 4090")
    assert origin(["RTX 4090"]) == "measured"
    assert origin(["Tesla T4"]) == "header"
    MeasuredStore(tmp_path).use("engine-2")
    assert origin(["RTX 4090"]) == "header"


def test_the_engine_in_use_is_kept_and_read_back(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path)
    assert store.engine == ""
    assert store.use("engine-1")
    assert not store.use("engine-1")
    key = MeasuredKey("engine-1", "ab" * 32, ServerSettings(2048), LayerSplit())
    store.keep(key, Estimate((DeviceBytes(HOST, weights=1),), "oracle"))
    assert MeasuredStore(tmp_path).engine == "engine-1"
