"""`roost status`: what runs here, where it is, and whether it is healthy."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import typer

from roost.cli.access import Access, find_access_of
from roost.cli.api import COLD, READY, UNREACHABLE, Api, Readiness
from roost.cli.jobs import JobRow, job_rows
from roost.cli.show import print_json, print_table
from roost.fleet.monitoring.firing import firing
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

NOT_READY = "not ready"
BY_HAND = "by hand"  # as the API says it
MOST_SHOWN = 20  # of the models elsewhere: a cloud may have hundreds
Json = Any


@dataclass(frozen=True)
class ModelRow:
    """One model: state and context (tokens of one request) as the agent sees them, None where unknown.

    `source` is where its server comes from: nomad, or by hand; empty where the agent was not asked.
    """

    name: str
    slot: str
    state: str
    context: int | None = None
    reason: str = ""
    tier: str | None = None
    source: str = ""


@dataclass(frozen=True)
class GatewayRow:
    """One of the gateways that are the API together: `this` is the one that was asked, `live`, `leaving` or `lost`."""

    replica: str
    state: str
    url: str | None = None


@dataclass(frozen=True)
class AgentSeen:
    """What the agent said: its models, the gateways, what it cannot write down, and why it said less than that."""

    models: list[dict[str, Json]] = field(default_factory=list)
    gateways: tuple[GatewayRow, ...] = ()
    not_kept: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class NomadSeen:
    """What Nomad said; `problem` why it said nothing."""

    leader: str = ""
    version: str = ""
    jobs: tuple[JobRow, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Status:
    """The whole picture. `unread` lists what this user could not read, and how it can be read.

    `elsewhere` are models of endpoints that were added by hand; the health of this machine does not depend on them.
    `better_plan` says in one line what this machine could serve if a model hub were allowed; mostly empty.
    """

    healthy: bool
    api: str
    api_listen: str | None
    web: str
    nomad: str
    api_key_file: str
    release: str
    runtime: str
    agent: str
    agent_reasons: tuple[str, ...]
    models: tuple[ModelRow, ...]
    elsewhere: tuple[ModelRow, ...]
    nomad_leader: str
    nomad_version: str
    nomad_problem: str
    jobs: tuple[JobRow, ...]
    unread: tuple[str, ...] = field(default=())
    better_plan: str = ""
    monitoring: str = ""  # where Prometheus answers, if it runs
    alerts: tuple[str, ...] = ()  # that fire
    monitoring_problem: str = ""
    gateways: tuple[GatewayRow, ...] = ()
    not_kept: tuple[str, ...] = ()


def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what runs here, where it is, and whether it is healthy.

    Ends with 0 when all is healthy, else with 1.

    Example: roost status --json
    """
    found = look(load_site())
    if as_json:
        print_json(asdict(found))
    else:
        show(found)
    raise typer.Exit(0 if found.healthy else 1)


def look(site: Site) -> Status:
    """Ask the agent and Nomad; what cannot be asked is named in `unread`."""
    access, no_key = find_access_of(site)
    seen, agent = _ask_agent(access)
    nomad, no_token = _ask_nomad(site)
    found = compose(site, seen, agent, nomad, tuple(t for t in (no_key, no_token, agent.refused) if t))
    return watched(found, site.monitoring, firing(site.monitoring)) if site.monitoring else found


def watched(found: Status, address: str, alerts: tuple[str, ...] | None) -> Status:
    """Add what Prometheus says; None: it does not answer, which harms no request and is said. Pure."""
    problem = f"Prometheus does not answer at {address}." if alerts is None else ""
    return replace(found, monitoring=address, alerts=alerts or (), monitoring_problem=problem)


def _ask_agent(access: Access) -> tuple[Readiness, AgentSeen]:
    with Api(access) as api:
        seen = api.readiness()
        if not seen.reachable:
            return seen, AgentSeen()
        not_kept: tuple[str, ...] = ()
        with suppress(RoostError):
            not_kept = tuple(api.get("/healthz").get("not_kept", ()))
        if not access.key:
            return seen, AgentSeen(not_kept=not_kept)
        try:
            models = api.models()
        except RoostError as error:
            return seen, AgentSeen(not_kept=not_kept, refused=str(error))
        rows: list[dict[str, Json]] = []
        with suppress(RoostError):  # a key that may only use models
            rows = api.get("/roost/v1/replicas")["data"]
        gateways = tuple(GatewayRow(str(row["replica"]), row["state"], row["url"]) for row in rows)
        return seen, AgentSeen(models, gateways if len(gateways) > 1 else (), not_kept)


def _ask_nomad(site: Site) -> tuple[NomadSeen, str]:
    try:
        client = NomadClient.from_site(site)
        version = client.get("agent/self")["config"]["Version"]["Version"]
        return NomadSeen(client.leader(), str(version), tuple(job_rows(client))), ""
    except RoostError as error:
        if error.exit_code == 4:  # this user may not ask; that says nothing of Nomad
            return NomadSeen(), str(error)
        return NomadSeen(problem=error.message), ""


def compose(site: Site, seen: Readiness, said: AgentSeen, nomad: NomadSeen, unread: tuple[str, ...]) -> Status:
    """Put the answers together: pure."""
    agent = READY if seen.ready else NOT_READY if seen.reachable else UNREACHABLE
    models = tuple(_model_row(slot.slot, slot.model, seen, said.models) for slot in site.slots)
    jobs_fine = all(row.healthy for row in nomad.jobs)
    healthy = agent == READY and all(m.state in (READY, COLD) for m in models) and jobs_fine and not nomad.problem
    return Status(
        healthy=healthy,
        api=site.api,
        api_listen=site.api_listen,
        web=site.web,
        nomad=site.nomad,
        api_key_file=str(site.api_key_file),
        release=site.release,
        runtime=site.runtime,
        agent=agent,
        agent_reasons=seen.reasons,
        models=models,
        elsewhere=_elsewhere(said.models, {slot.model for slot in site.slots}),
        nomad_leader=nomad.leader,
        nomad_version=nomad.version,
        nomad_problem=nomad.problem,
        jobs=nomad.jobs,
        unread=unread,
        better_plan=site.better_plan,
        gateways=said.gateways,
        not_kept=said.not_kept,
    )


def _model_row(slot: str, name: str, seen: Readiness, entries: list[dict[str, Json]]) -> ModelRow:
    """Return what is known of one slot: from `/v1/models` with a key, else from the counts of `/readyz`."""
    for entry in entries:
        known = entry.get("roost") or {}
        if entry.get("id") == name and known.get("slot") == slot:
            return _row_of(entry)
    return ModelRow(name, slot, seen.state_of(slot))


def _elsewhere(entries: list[dict[str, Json]], here: set[str]) -> tuple[ModelRow, ...]:
    rows = [_row_of(entry) for entry in entries if BY_HAND in ((entry.get("roost") or {}).get("source") or ())]
    return tuple(row for row in rows if row.name not in here)


def _row_of(entry: dict[str, Json]) -> ModelRow:
    known = entry.get("roost") or {}
    return ModelRow(
        name=str(entry["id"]),
        slot=str(known.get("slot")),
        state=str(known.get("state")),
        context=known.get("context"),
        reason=str(known.get("reason") or ""),
        tier=known.get("tier"),
        source=", ".join(known.get("source") or ()),
    )


def show(found: Status) -> None:
    """Print the picture for people."""
    print_table(
        ["roost", "healthy" if found.healthy else "not healthy"],
        [
            ("api", found.api), *((("api (LAN)", found.api_listen),) if found.api_listen else ()),
            ("web", found.web), ("nomad", found.nomad), ("key file", found.api_key_file),
            ("release", f"{found.release} ({found.runtime})"), ("agent", found.agent),
            *((("nomad version", f"{found.nomad_version}, leader {found.nomad_leader or 'none'}"),)
              if found.nomad_version else ()),
            *((("monitoring", found.monitoring),) if found.monitoring else ()),
        ],
    )  # fmt: skip
    print()
    print_table(
        ["model", "slot", "state", "context", "tier", "source", ""],
        [
            (m.name, m.slot, m.state, m.context, m.tier, m.source, m.reason)
            for m in (*found.models, *found.elsewhere[:MOST_SHOWN])
        ],
    )
    if len(found.elsewhere) > MOST_SHOWN:
        print(f"and {len(found.elsewhere) - MOST_SHOWN} more elsewhere: see `roost endpoints list`")
    if found.jobs:
        print()
        print_table(
            ["job", "status", "running", "restarts"],
            [(j.id, j.status, f"{j.running}/{j.wanted}", j.restarts) for j in found.jobs],
        )
    if found.gateways:
        print()
        print_table(["gateway", "state", "address"], [(g.replica[:8], g.state, g.url) for g in found.gateways])
    if found.not_kept:
        print(f"\n! The agent serves, but cannot write down: {', '.join(found.not_kept)}. Is its disk full (`df -h`)?")
    for reason in (*found.agent_reasons, *((found.nomad_problem,) if found.nomad_problem else ())):
        print(f"\n! {reason}")
    for alert in (*found.alerts, *((found.monitoring_problem,) if found.monitoring_problem else ())):
        print(f"\n! {alert}")
    for text in found.unread:
        print(f"\n? {text}")
    if found.better_plan:
        print(f"\n{found.better_plan}")
    if not found.healthy:
        print("\nSee `roost doctor` for what is wrong and how to put it right.")
