"""`roost jobs`: what Nomad runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from roost.cli.show import local_time, print_json, print_table
from roost.fleet.deploy import wants_nothing
from roost.fleet.nomad_api import NomadClient
from roost.ops.site import load_site

COLD = "cold"  # stopped until somebody asks for its model
Json = Any


@dataclass(frozen=True)
class JobRow:
    """One job. `since` is when its newest task started, as ISO time in UTC; `restarts` counts those of its tasks."""

    id: str
    status: str
    running: int
    wanted: int
    restarts: int
    node: str
    since: str
    events: tuple[str, ...]  # the newest task's last messages, oldest first

    @property
    def healthy(self) -> bool:
        """Say whether all that is wanted runs; of a cold job nothing is."""
        return self.status == COLD or (self.status == "running" and self.running >= self.wanted)


def jobs(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the jobs that Nomad runs: wanted and running, restarts, node, since when.

    Example: roost jobs --json
    """
    rows = job_rows(NomadClient.from_site(load_site()))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ["job", "status", "running", "restarts", "node", "since"],
        [(r.id, r.status, f"{r.running}/{r.wanted}", r.restarts, r.node, local_time(r.since)) for r in rows],
    )
    for row in rows:
        if not row.healthy and row.events:
            print(f"{row.id}: {row.events[-1]}")


def job_rows(client: NomadClient) -> list[JobRow]:
    """Ask Nomad for all jobs.

    Raises:
        RoostError: Nomad does not answer, or refuses.
    """
    rows = []
    for stub in client.list_jobs():
        job_id = str(stub["ID"])
        definition = client.job(job_id) or {}
        rows.append(job_row(stub, definition, client.allocations(job_id)))
    return sorted(rows, key=lambda row: row.id)


def job_row(stub: dict[str, Json], definition: dict[str, Json], allocations: list[dict[str, Json]]) -> JobRow:
    """Put one job's answers of Nomad together: pure."""
    alive = [a for a in allocations if a.get("ClientStatus") == "running" and a.get("DesiredStatus") == "run"]
    newest = (alive or allocations or [{}])[0]
    wanted = sum(int(g.get("Count", 1)) for g in definition.get("TaskGroups") or [])
    cold = wants_nothing(definition) and not definition.get("Stop")
    tasks = newest.get("TaskStates") or {}
    started = max((t.get("StartedAt") or "" for t in tasks.values()), default="")
    events = [e.get("DisplayMessage") or e.get("Type", "") for t in tasks.values() for e in t.get("Events") or []]
    return JobRow(
        id=str(stub["ID"]),
        status=COLD if cold else str(stub.get("Status", "")),
        running=len(alive),
        wanted=wanted,
        restarts=sum(int(t.get("Restarts", 0)) for t in tasks.values()),
        node=str(newest.get("NodeName", "")),
        since=started[:19] + "Z" if started and not started.startswith("0001") else "",
        events=tuple(str(e) for e in events[-3:]),
    )
