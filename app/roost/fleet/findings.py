"""Where what runs is not what was planned. Pure: from the plan, the jobs and the endpoints to findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from roost.fleet.plan import Refused
from roost.hosts.findings import Finding, NotChecked

READY, COLD, LOADING, DOWN = "ready", "cold", "loading", "down"
# How long a server may load: its program starts, then the file is read from a slow disk.
START_S = 120.0
SLOW_DISK_BYTES_PER_S = 50e6
AGAIN = "Run ./bootstrap.sh."


@dataclass(frozen=True)
class ServerSeen:
    """One slot: what is planned, what its job was made with, and what the agent sees of its server.

    None and empty texts: not known. `context` is in tokens of one request, `loading_s` since its task was started,
    `file_bytes` the model's size.
    """

    slot: str
    model: str
    job_model: str = ""
    planned_context: int = 0
    context: int | None = None
    state: str = ""
    reason: str = ""
    stuck: bool = False
    loading_s: float | None = None
    file_bytes: int = 0


@dataclass(frozen=True)
class FleetSeen:
    """What was seen. `refused` is what the plan of now could not place; None: it was not made, for `unplanned`."""

    servers: Sequence[ServerSeen] = ()
    refused: Sequence[Refused] | None = None
    unplanned: str = ""


def fleet_findings(seen: FleetSeen) -> list[Finding]:
    """Return what is wrong."""
    return [
        *(finding for server in seen.servers for finding in _server(server)),
        *_refused(seen),
        *_fallback(seen),
    ]


def fleet_not_checked(seen: FleetSeen) -> list[NotChecked]:
    """Return what was not looked at."""
    found = []
    states = sorted(server.slot for server in seen.servers if server.state in {"", "unknown", "unreachable"})
    if states:
        found.append(NotChecked(f"the model servers of {', '.join(states)}", "the agent did not say how they are"))
    contexts = sorted(s.slot for s in seen.servers if s.state == READY and s.planned_context and s.context is None)
    if contexts:
        found.append(NotChecked(f"the context of {', '.join(contexts)}", "their servers were not heard about it"))
    jobs = sorted(server.slot for server in seen.servers if not server.job_model)
    if jobs:
        found.append(NotChecked(f"whether the jobs of {', '.join(jobs)} are as planned", "Nomad did not say"))
    if seen.refused is None:
        why = seen.unplanned or "nothing was planned anew"
        found.append(NotChecked("whether all slots would be placed today", why))
    return found


def loading_allowance_s(file_bytes: int) -> float:
    """Return how many seconds a server may load a file of this size."""
    return START_S + file_bytes / SLOW_DISK_BYTES_PER_S


def _server(server: ServerSeen) -> Iterator[Finding]:
    log = f"`roost logs {server.slot}`"
    if server.state == DOWN and server.stuck:
        yield Finding(
            f"server:{server.slot}", "error", f"The model server of {server.slot} is stuck: {server.reason}.",
            "It holds its memory and answers nobody; the agent has Nomad replace it after half a minute, not for ever.",
            f"Look at {log} and `roost jobs`: if it comes back, choose a smaller context or another quantisation.",
        )  # fmt: skip
    elif server.state == DOWN:
        yield Finding(
            f"server:{server.slot}", "error",
            f"The model server of {server.slot} is down: {server.reason or 'no reason given'}.",
            "Requests for it go to a lighter model or fail.", f"Look at {log}; Nomad starts it again by itself.",
        )  # fmt: skip
    elif server.state == LOADING and server.loading_s is not None:
        allowed = loading_allowance_s(server.file_bytes)
        if server.loading_s > allowed:
            yield Finding(
                f"server:{server.slot}", "warning",
                f"The model server of {server.slot} has been loading for {server.loading_s:.0f} s; "
                f"{allowed:.0f} s are enough on a slow disk.",
                "It may be stuck, or the disk is very slow or failing.",
                f"Look at {log} and `dmesg`; `roost hosts` names the kind of disk.",
            )  # fmt: skip
    if server.state == READY and server.planned_context and server.context not in {None, server.planned_context}:
        fewer = (server.context or 0) < server.planned_context
        yield Finding(
            f"context:{server.slot}", "error" if fewer else "warning",
            f"The model server of {server.slot} has a context of {server.context} tokens, {server.planned_context} are "
            "planned.",
            "Long requests are refused or cut." if fewer else "It takes more memory than was planned.",
            f"{AGAIN} If it comes back, look at {log} for what the engine says of its context.",
        )  # fmt: skip
    if server.job_model and not _same_model(server.job_model, server.model):
        yield Finding(
            f"plan:{server.slot}", "warning",
            f"The slot {server.slot} serves {server.job_model}, planned is {server.model}.",
            "The plan was changed and not carried out, or somebody changed the job.", AGAIN,
        )  # fmt: skip


def _same_model(one: str, other: str) -> bool:
    """Compare references; one without a quantisation is of any."""
    (name, _, quantisation), (name2, _, quantisation2) = one.partition(":"), other.partition(":")
    return name == name2 and (not quantisation or not quantisation2 or quantisation == quantisation2)


def _refused(seen: FleetSeen) -> Iterator[Finding]:
    for refused in seen.refused or ():
        yield Finding(
            f"refused:{refused.slot}", "error", f"The slot {refused.slot} has no place: {refused.reason}.",
            "It is not served.", refused.remedy,
        )  # fmt: skip


def _fallback(seen: FleetSeen) -> Iterator[Finding]:
    models = {server.model for server in seen.servers}
    if seen.servers and len(models) == 1:
        yield Finding(
            "fallback", "info", f"No second model can take over while {next(iter(models))} loads or is down.",
            "Requests wait then, and fail if it takes long.",
            "Nothing to do on a small machine; else add a slot with a lighter one: roost setup.",
        )  # fmt: skip
