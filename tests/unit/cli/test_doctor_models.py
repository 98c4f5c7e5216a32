"""What doctor collects of models and servers."""

from __future__ import annotations

import json

import pytest
import yaml

from roost.cli import doctor_models
from roost.cli.jobs import JobRow
from roost.cli.status import ModelRow
from roost.engines.llamacpp import STUCK
from roost.fleet.job_memory import gpu_words
from roost.fleet.plan import GpuCapacity, HostCapacity, Placed, Plan
from roost.fleet.plan_file import NAME as PLAN_FILE
from roost.fleet.plan_file import document_of
from roost.hosts.facts import HostFacts
from roost.hosts.report import look as look_at_host
from roost.models import hub as hubs
from roost.models.catalogue import load_catalogue
from roost.models.estimate.measured import MeasuredKey, MeasuredStore
from roost.models.findings import ModelsSeen, model_findings, models_not_checked
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, Origin, ServerSettings
from roost.models.lock_file import Locked, add_lock
from roost.ops.site import Slot, load_site
from tests.support.hub_server import FILE, REPOSITORY, hub
from tests.unit.cli.fakes import Installation

SLOT = Slot(slot="main", model="hubbed", job="roost-model-main")
JOB = JobRow("roost-model-main", "running", 1, 1, 0, "box", "2026-01-02T03:04:05Z", ())
CONTENT = b"weights"


@pytest.fixture
def hubbed(site: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Have a slot whose model only a hub has."""
    monkeypatch.setattr(hubs, "get_token", lambda: None)
    monkeypatch.delenv("HTTP_PROXY")
    source = {"kind": "hub", "repository": REPOSITORY, "file": FILE}
    model = {
        "title": "Tiny", "licence": "CC0-1.0", "architecture": "llama", "parameters": {"total": 1, "active": 1},
        "context_length": 128, "roles": {"main": 10}, "tier": "potato",
        "quantisations": {"Q4_K_M": {"file": {"name": "hubbed.gguf"}, "sources": [source]}},
    }  # fmt: skip
    path = site.folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {"hubbed": model}}))
    found = json.loads(site.site_file.read_text())
    slots = [SLOT.model_dump(), {"slot": "router", "model": "nowhere", "job": "roost-model-router"}]
    site.site_file.write_text(json.dumps({**found, "catalogue": str(path), "slots": slots}))
    return site


def look() -> ModelsSeen:
    site = load_site()
    return doctor_models.look_at_models(site, load_catalogue(site.catalogue))


def ids(seen: ModelsSeen) -> list[str]:
    return [finding.id for finding in model_findings(seen)]


@pytest.mark.usefixtures("hubbed")
def test_a_hub_is_asked_where_only_it_has_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    silent = look()
    assert "could not be reached" in str(silent.hub_problem)
    assert ids(silent) == ["model-of:router", "model:hubbed:Q4_K_M", "hub"]
    with hub(CONTENT) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.hub_url)
        assert look().hub_problem == ""
        server.gated = True
        assert look().hub_problem == ""  # it answers, though it does not give
        server.hub_faults = ["503"] * 9
        assert "does not answer for now" in str(look().hub_problem)
        assert len(server.hub_faults) == 8  # asked once


def test_an_entry_of_the_lock_for_another_file(hubbed: Installation) -> None:
    lock = hubbed.folder / "models.lock.yaml"
    entry = {"revision": "main", "file": FILE, "commit": "c", "bytes": 7, "sha256": "0" * 64}
    add_lock(lock, "hubbed:Q4_K_M", Locked.model_validate({"repository": "other/one", **entry}))
    (seen,) = look().files
    assert (seen.state, seen.lock) == ("", "other")
    lock.unlink()
    add_lock(lock, "hubbed:Q4_K_M", Locked.model_validate({"repository": REPOSITORY, **entry}))
    (seen,) = look().files
    assert (seen.state, seen.lock, seen.bytes, seen.only_hub) == ("missing", "fits", 7, True)


def test_a_file_that_is_here_needs_no_hub(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_args: object) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr(hubs, "why_silent", nobody)
    assert look().hub_problem is None
    assert [f.lock for f in look().files] == ["not needed"]
    assert site.api.probes == 0


@pytest.mark.parametrize(
    ("row", "job", "seen"),
    [
        (None, None, ("", False, None)),
        (ModelRow("m", "main", "ready", 8192), JOB, ("ready", False, 10.0)),
        (ModelRow("m", "main", "down", None, STUCK.format(30)), JOB, ("down", True, 10.0)),
        (ModelRow("m", "main", "down", None, "refused"), None, ("down", False, None)),
    ],
)
def test_what_is_said_of_a_server(
    row: ModelRow | None, job: JobRow | None, seen: tuple[str, bool, float | None]
) -> None:
    now = 1767323055.0  # 2026-01-02T03:04:15Z
    server = doctor_models.server_seen(SLOT, row, job, 4096, now)
    assert (server.state, server.stuck, server.loading_s) == seen
    assert server.planned_context == 4096


def test_the_model_of_a_job_is_in_a_tag() -> None:
    job = {"TaskGroups": [{"Services": None, "Tasks": [{"Services": [{"Tags": ["slot=main", "model=a:Q8_0"]}]}]}]}
    assert doctor_models.model_of_job(job) == "a:Q8_0"
    assert doctor_models.model_of_job({}) == ""


def placed(slot: str, device: str, total: int) -> Placed:
    estimate = Estimate((DeviceBytes(HOST, 1), DeviceBytes(device, total)), "header")
    return Placed(slot, "m", "Q8_0", "box", ServerSettings(512), LayerSplit(), estimate, "")


def test_the_kept_plan_is_held_against_what_there_is() -> None:
    host = HostCapacity("box", "sweet", 10, 2, 40.0, (GpuCapacity(0, "AMD", "card", 100),))
    plan = Plan((placed("main", "GPU0", 70), placed("router", "GPU0", 50)))
    figures = {figure.device: figure for figure in doctor_models.memory_figures(plan, [host])}
    assert (figures["GPU0"].slot, figures["GPU0"].estimated, figures["GPU0"].there) == ("main, router", 120, 100)
    assert [f.id for f in model_findings(ModelsSeen(memory=tuple(figures.values())))] == ["memory:main, router:GPU0"]
    assert doctor_models.memory_figures(None, [host]) == ()


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        (1.25, "measured", ["measured:main:CPU"]),
        (1.005, "measured", []),  # within what plans allow for: they would not change for it
        (0.7, "measured", []),
        (1.25, "oracle", []),
    ],
)
def test_what_a_server_took_is_held_against_what_it_was_planned_with(
    site: Installation, more: float, kind: Origin, said: list[str]
) -> None:
    here = load_site()
    here.state_dir.mkdir(parents=True, exist_ok=True)
    settings, planned = ServerSettings(512), 1000 << 20
    model = load_catalogue(here.catalogue).get("smollm2-135m-instruct")
    estimate = Estimate((DeviceBytes(HOST, planned),), "header")
    runs = Placed("main", model.name, model.quantisation, "box", settings, LayerSplit(), estimate, "")
    (here.state_dir / PLAN_FILE).write_text(json.dumps(document_of(Plan((runs,)))))
    (site.folder / "host.yaml").write_text("model_slots: [{slot: main, model: smollm2-135m-instruct}]\n")
    store = MeasuredStore(here.state_dir)
    store.use("engine-1")
    key = MeasuredKey("engine-1", model.file.sha256, settings, LayerSplit(), gpu_words([g.name for g in facts().gpus]))
    store.keep(key, Estimate((DeviceBytes(HOST, int(planned * more)),), kind))
    seen = ModelsSeen(memory=doctor_models.look_at_plan().memory)
    assert [f.id for f in model_findings(seen) if f.id.startswith("measured")] == said
    skipped = [skipped.what for skipped in models_not_checked(seen) if "memory in use" in skipped.what]
    assert bool(skipped) == (kind != "measured")


def facts() -> HostFacts:
    return look_at_host([]).facts


def test_what_would_be_refused_today_is_seen(site: Installation) -> None:
    assert doctor_models.look_at_plan().refused == ()
    (site.folder / "host.yaml").write_text("model_slots: [{slot: main, context_size: 100000000}]\n")
    (refused,) = doctor_models.look_at_plan().refused or ()
    assert refused.slot == "main"
    (site.folder / "host.yaml").write_text("model_slots: [{slot: main, model: nowhere}]\n")
    seen = doctor_models.look_at_plan()
    assert seen.refused is None
    assert "nowhere" in seen.problem
