"""`roost status`: what runs here, where it is, and whether it is healthy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from roost.cli.api import COLD, READY, UNREACHABLE, Access, Api, Readiness, find_access_of
from roost.cli.jobs import JobRow, job_rows
from roost.cli.show import print_json, print_table
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

NOT_READY = "not ready"
Json = Any


@dataclass(frozen=True)
class ModelRow:
    """One model server: state and context (tokens of one request) as the agent sees them, None where unknown."""

    name: str
    slot: str
    state: str
    context: int | None = None
    reason: str = ""


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
    nomad_leader: str
    nomad_version: str
    nomad_problem: str
    jobs: tuple[JobRow, ...]
    unread: tuple[str, ...] = field(default=())
    better_plan: str = ""


def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what runs here, where it is, and whether it is healthy.

    Ends with 0 when all is healthy, else with 1.

    Example: roost status --json
    """
    found = look(load_site())
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)
    raise typer.Exit(0 if found.healthy else 1)


def look(site: Site) -> Status:
    """Ask the agent and Nomad; what cannot be asked is named in `unread`."""
    access, no_key = find_access_of(site)
    seen, entries, refused = _ask_agent(access)
    nomad, no_token = _ask_nomad(site)
    return compose(site, seen, entries, nomad, tuple(t for t in (no_key, no_token, refused) if t))


def _ask_agent(access: Access) -> tuple[Readiness, list[dict[str, Json]], str]:
    with Api(access) as api:
        seen = api.readiness()
        if not (seen.reachable and access.key):
            return seen, [], ""
        try:
            return seen, api.models(), ""
        except RoostError as error:
            return seen, [], str(error)


def _ask_nomad(site: Site) -> tuple[NomadSeen, str]:
    try:
        client = NomadClient.from_site(site)
        version = client.get("agent/self")["config"]["Version"]["Version"]
        return NomadSeen(client.leader(), str(version), tuple(job_rows(client))), ""
    except RoostError as error:
        if error.exit_code == 4:  # this user may not ask; that says nothing of Nomad
            return NomadSeen(), str(error)
        return NomadSeen(problem=error.message), ""


def compose(
    site: Site, seen: Readiness, entries: list[dict[str, Json]], nomad: NomadSeen, unread: tuple[str, ...]
) -> Status:
    """Put the answers together: pure."""
    agent = READY if seen.ready else NOT_READY if seen.reachable else UNREACHABLE
    models = tuple(_model_row(slot.slot, slot.model, seen, entries) for slot in site.slots)
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
        nomad_leader=nomad.leader,
        nomad_version=nomad.version,
        nomad_problem=nomad.problem,
        jobs=nomad.jobs,
        unread=unread,
        better_plan=site.better_plan,
    )


def _model_row(slot: str, name: str, seen: Readiness, entries: list[dict[str, Json]]) -> ModelRow:
    """Return what is known of one slot: from `/v1/models` with a key, else from the counts of `/readyz`."""
    for entry in entries:
        known = entry.get("roost") or {}
        if entry.get("id") == name and known.get("slot") == slot:
            return ModelRow(name, slot, str(known.get("state")), known.get("context"), str(known.get("reason") or ""))
    return ModelRow(name, slot, seen.state_of(slot))


def _print(found: Status) -> None:
    print_table(
        ["roost", "healthy" if found.healthy else "not healthy"],
        [
            ("api", found.api), *((("api (LAN)", found.api_listen),) if found.api_listen else ()),
            ("web", found.web), ("nomad", found.nomad), ("key file", found.api_key_file),
            ("release", f"{found.release} ({found.runtime})"), ("agent", found.agent),
            *((("nomad version", f"{found.nomad_version}, leader {found.nomad_leader or 'none'}"),)
              if found.nomad_version else ()),
        ],
    )  # fmt: skip
    print()
    print_table(
        ["model", "slot", "state", "context", ""],
        [(m.name, m.slot, m.state, m.context, m.reason) for m in found.models],
    )
    if found.jobs:
        print()
        print_table(
            ["job", "status", "running", "restarts"],
            [(j.id, j.status, f"{j.running}/{j.wanted}", j.restarts) for j in found.jobs],
        )
    for reason in (*found.agent_reasons, *((found.nomad_problem,) if found.nomad_problem else ())):
        print(f"\n! {reason}")
    for text in found.unread:
        print(f"\n? {text}")
    if found.better_plan:
        print(f"\n{found.better_plan}")
    if not found.healthy:
        print("\nSee `roost doctor` for what is wrong and how to put it right.")
