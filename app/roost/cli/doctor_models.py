"""What `roost doctor` looks at of models, jobs and endpoints; the rooms `models` and `fleet` say what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from roost.cli.jobs import JobRow
from roost.cli.plan import planned, question
from roost.cli.status import ModelRow, Status
from roost.engines.http_server import SILENT
from roost.engines.llamacpp import STALLED, STUCK
from roost.fleet.findings import FleetSeen, ServerSeen
from roost.fleet.fleet_plan import device_uses
from roost.fleet.nomad_api import NomadClient
from roost.fleet.plan import HostCapacity, Placed, Plan, Refused
from roost.models.catalogue import Catalogue
from roost.models.findings import Lock, MemoryFigure, ModelsSeen, PlannedFile
from roost.models.footprint import Estimator
from roost.models.obtainable import only_hub
from roost.models.schema import ListedDownload, find_lock
from roost.models.source_types import HubSource
from roost.models.store import free_bytes, model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.site import Site, Slot

ASK_TIMEOUT_S = 10.0
MODEL_TAG = "model="
STUCK_WORDS = tuple(words.partition("{")[0] for words in (STUCK, STALLED, SILENT))
Json = Any


def look_at_models(site: Site, catalogue: Catalogue, *, extra_ca: Path | None = None) -> ModelsSeen:
    """Look at the files that slots need; a hub is asked only where a file is wanted that nothing else has."""
    files: list[PlannedFile] = []
    problems: dict[str, tuple[str, str]] = {}
    for slot in site.slots:
        try:
            files += _files_of(slot, site, catalogue)
        except RoostError as error:
            problems[slot.slot] = (error.message, error.fix)
    return ModelsSeen(
        files=files,
        free_bytes=free_bytes(site.models_dir),
        hub_problem=_ask_hub(_wanted_of_hub(site, catalogue, files), extra_ca),
        problems=problems,
    )


def _files_of(slot: Slot, site: Site, catalogue: Catalogue) -> Iterator[PlannedFile]:
    if slot.model.startswith("/"):
        state = "verified" if Path(slot.model).is_file() else "missing"
        yield PlannedFile(slot.slot, slot.model, slot.model, state)
        return
    listed = catalogue.listed(slot.model)
    known = catalogue.known_files()
    for name, download in {listed.reference: listed, **listed.parts, **listed.extras}.items():
        file = known.get(name)
        yield PlannedFile(
            slot=slot.slot,
            name=name,
            path=str(model_path(site.models_dir, file)) if file else "",
            state=state_of(site.models_dir, file).value if file else "",
            bytes=file.bytes if file else 0,
            lock=_lock_of(name, download, catalogue),
            only_hub=only_hub(download),
        )


def _lock_of(name: str, download: ListedDownload, catalogue: Catalogue) -> Lock:
    if download.file.is_known:
        return "not needed"
    if find_lock(catalogue.locks, name, download) is not None:
        return "fits"
    return "other" if name in catalogue.locks else "missing"


def _wanted_of_hub(site: Site, catalogue: Catalogue, files: Sequence[PlannedFile]) -> HubSource | None:
    """Return a file that is not here and that only a hub has, or None."""
    wanted = {file.name for file in files if file.only_hub and file.state in {"", "missing"}}
    for slot in site.slots:
        with suppress(RoostError):
            listed = catalogue.listed(slot.model)
            for name, download in {listed.reference: listed, **listed.parts, **listed.extras}.items():
                if name in wanted:
                    return download.hub_sources[0]
    return None


def _ask_hub(source: HubSource | None, extra_ca: Path | None) -> str | None:
    if source is None:
        return None
    from roost.models.hub import default_hub, why_silent  # takes a second; only who needs a hub asks one

    return why_silent(source, default_hub(extra_ca))


def look_at_servers(
    site: Site, status: Status, catalogue: Catalogue, contexts: Mapping[str, int], now: float
) -> FleetSeen:
    """Put together what Nomad and the agent say of each slot. `contexts` are those that are planned."""
    models = {row.slot: row for row in status.models}
    jobs = {row.id: row for row in status.jobs}
    made_with = _models_of_jobs(site) if status.nomad_version else {}
    return FleetSeen(
        servers=[
            replace(
                server_seen(slot, models.get(slot.slot), jobs.get(slot.job), contexts.get(slot.slot, 0), now),
                job_model=made_with.get(slot.job, ""),
                file_bytes=_bytes_of(slot, catalogue),
            )
            for slot in site.slots
        ]
    )


def server_seen(slot: Slot, row: ModelRow | None, job: JobRow | None, planned_context: int, now: float) -> ServerSeen:
    """Put one slot's answers together: pure."""
    return ServerSeen(
        slot=slot.slot,
        model=slot.model,
        planned_context=planned_context,
        context=row.context if row else None,
        state=row.state if row else "",
        reason=row.reason if row else "",
        stuck=bool(row and row.reason.startswith(STUCK_WORDS)),
        loading_s=now - datetime.fromisoformat(job.since).timestamp() if job and job.since else None,
    )


def _bytes_of(slot: Slot, catalogue: Catalogue) -> int:
    with suppress(RoostError):
        return catalogue.get(slot.model).bytes
    return 0


@dataclass(frozen=True)
class PlanSeen:
    """What placement says today: which slots it refuses, and the memory of what runs: by the kept plan, and measured.

    `problem` says why nothing was planned; then `refused` is None.
    """

    refused: tuple[Refused, ...] | None = None
    memory: tuple[MemoryFigure, ...] = ()
    contexts: dict[str, int] = field(default_factory=dict)  # of what runs, in tokens of one request
    problem: str = ""


def look_at_plan() -> PlanSeen:
    """Plan this machine as the playbook would, and hold the plan that is kept against what there is."""
    try:
        asked = question([], "")
        plan = planned(asked, asked.hosts, asked.slots)
    except RoostError as error:
        return PlanSeen(problem=error.message)
    except PermissionError:
        return PlanSeen(problem="only root may read the plan that is kept; run sudo roost doctor")
    running = asked.present.placed if asked.present else ()
    contexts = {placed.slot: placed.settings.context_size for placed in running}
    memory = (*memory_figures(asked.present, asked.hosts), *server_figures(running, asked.figures.best))
    return PlanSeen(plan.refused, memory, contexts)


def memory_figures(present: Plan | None, hosts: Sequence[HostCapacity]) -> tuple[MemoryFigure, ...]:
    """Return what the model servers that run are planned with on each device, and what there is: pure."""
    if present is None:
        return ()
    found = []
    for use in device_uses(present, hosts):
        slots = [p.slot for p in present.placed if p.host == use.host and p.estimate.on(use.device).total]
        if slots:
            found.append(MemoryFigure(", ".join(sorted(slots)), use.device, use.planned, None, use.free))
    return tuple(found)


def server_figures(running: Sequence[Placed], known: Estimator) -> tuple[MemoryFigure, ...]:
    """Return what each server was planned with on each device, and what it took there by the figures that are kept.

    One over several hosts is left out: what their workers take is not measured.
    """
    found = []
    for placed in running:
        if placed.rpc:
            continue
        took = None
        with suppress(RoostError):  # the catalogue may have changed since; that is a finding of its own
            took = known.estimate(placed.model, placed.quantisation, placed.settings, placed.split)
        measured = took if took is not None and took.origin == "measured" else None
        for device in (measured or placed.estimate).devices:
            planned = placed.estimate.on(device.device).total
            found.append(MemoryFigure(placed.slot, device.device, planned, device.total if measured else None))
    return tuple(found)


def _models_of_jobs(site: Site) -> dict[str, str]:
    """Return which model each job of a slot was made with."""
    found: dict[str, str] = {}
    with suppress(RoostError):  # what hinders us is a finding of its own
        client = NomadClient.from_site(site, timeout_s=ASK_TIMEOUT_S)
        for slot in site.slots:
            found[slot.job] = model_of_job(client.job(slot.job) or {})
    return found


def model_of_job(definition: Mapping[str, Json]) -> str:
    """Return the model in the tags of a job's services, empty if none is named."""
    groups = definition.get("TaskGroups") or []
    tasks = [task for group in groups for task in group.get("Tasks") or []]
    services = [service for owner in (*groups, *tasks) for service in owner.get("Services") or []]
    tags = [str(tag) for service in services for tag in service.get("Tags") or []]
    return next((tag.removeprefix(MODEL_TAG) for tag in tags if tag.startswith(MODEL_TAG)), "")
