"""Whether a model server put its layers where the plan wants them: its job's meta compared with its start log."""

from __future__ import annotations

from dataclasses import dataclass

from roost.fleet.engine_start import MARKS, EngineStart, planned_layers, read_start, shortfall
from roost.fleet.jobs import META_LAYERS, META_SLOTS
from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.ops.errors import RoostError

TASK = "engine"
ON_DEVICES = {
    "docker": "Look whether the container gets the driver: `docker info` lists the runtime nvidia for NVIDIA's cards, "
    "and for AMD's and Intel's the job has devices and group_add; then run ./bootstrap.sh again.",
    "raw_exec": "Look whether the driver is there for the user of the engine (`roost hosts` shows it); then run "
    "./bootstrap.sh again.",
}


@dataclass(frozen=True)
class Proof:
    """What a job's log proves. `problem` is empty if the plan is met or wanted nothing; `start` None: not told."""

    job: str
    planned: dict[str, int]
    start: EngineStart | None
    problem: str = ""
    running: bool = True
    gpu_slots: tuple[str, ...] = ()  # PCI addresses of the cards that it uses


def prove(client: NomadClient, job_id: str) -> Proof:
    """Compare a job that runs with its plan.

    Raises:
        NomadUnreachableError, NomadRefusedError: Nomad cannot be asked, and the plan wants layers on devices.
    """
    job = client.job(job_id) or {}
    meta = job.get("Meta") or {}
    planned = planned_layers(str(meta.get(META_LAYERS, "")))
    slots = tuple(str(meta.get(META_SLOTS, "")).split())
    running, start = False, None
    try:
        allocation = next((a for a in client.allocations(job_id) if a.get("ClientStatus") == "running"), None)
        running = allocation is not None
        start = newest_start(client, str(allocation["ID"])) if allocation is not None else None
    except (NomadRefusedError, NomadUnreachableError):
        if planned:
            raise
    return Proof(job_id, planned, start, shortfall(start, planned) if start and planned else "", running, slots)


def newest_start(client: NomadClient, allocation: str) -> EngineStart | None:
    """Return the newest start that an allocation's log still holds, or None."""
    kept: list[str] = []
    rest = b""
    try:
        for block in client.logs(allocation, TASK, from_start=True):
            *lines, rest = (rest + block).split(b"\n")
            kept += [line.decode(errors="replace") for line in lines if any(mark in line for mark in MARKS)]
    except NomadRefusedError as error:
        if error.status == 404:  # nothing was written yet
            return None
        raise
    return read_start("\n".join([*kept, rest.decode(errors="replace")]))


def require(proof: Proof, driver: str, *, fresh: bool) -> None:
    """Accept a proof, or refuse it: what was planned for a graphics processor shall not compute on the processor.

    `fresh`: the server was started just now, so that its log must tell.

    Raises:
        RoostError: fewer layers than planned are on devices, or a fresh log does not say.
    """
    if not proof.planned:
        return
    problem = proof.problem
    if proof.start is None and fresh:
        problem = "its log does not say which layers are on graphics processors"
    if problem:
        raise RoostError(
            f"The model server {proof.job} runs, but not as planned: {problem}.",
            fix=f"{ON_DEVICES.get(driver, '')} `gpu: none` in its slot lets it compute on the processor on purpose.",
        )
