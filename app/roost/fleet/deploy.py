"""Bring a job to what its text says: parse, validate, plan, run, and wait until it is healthy."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from roost.fleet.jobs import KEEP_WARM_TAG, MODEL_SERVICE_PREFIX, RPC_JOB_PREFIX
from roost.fleet.membership import gets_work
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import RoostError

Json = Any
BLOCK_S = 10.0
FAILED_STATES = ("failed", "cancelled")
GONE = ("lost", "unknown")  # its machine does not answer: nobody can say more of it
CRASHES = 5  # a new version that ended so often right after its start does not become healthy by waiting
LOOK_S = 2.0
BY_NAME = "${node.unique.name}"  # by which model servers' jobs name their machines


@dataclass(frozen=True)
class JobChange:
    """What applying a job did, or would do. `lines` is the difference, one changed field a line."""

    job: str
    changed: bool
    lines: list[str]
    warnings: str = ""


REVIVED = "Status: 'dead' -> 'running'"


def diff_lines(diff: dict[str, Json], prefix: str = "") -> list[str]:
    """Flatten Nomad's structured job difference into lines `path: old -> new`; unchanged parts give none."""
    lines = [
        f"{prefix}{field['Name']}: {field.get('Old', '')!r} -> {field.get('New', '')!r}"
        for field in diff.get("Fields") or []
        if field.get("Type") != "None"
    ]
    for part in ("Objects", "TaskGroups", "Tasks"):
        for child in diff.get(part) or []:
            if child.get("Type") != "None":
                lines += diff_lines(child, f"{prefix}{child['Name']}.")
    return lines


def parse(client: NomadClient, text: str) -> dict[str, Json]:
    """Turn HCL into Nomad's job structure and validate it.

    Raises:
        RoostError: the text is not a valid job.
    """
    try:
        job: dict[str, Json] = client.put("jobs/parse", {"JobHCL": text, "Canonicalize": True})
    except NomadRefusedError as error:
        raise RoostError(f"The job's text is not valid: {error.text.strip()}") from None
    answer = client.put("validate/job", {"Job": job})
    if answer.get("ValidationErrors") or answer.get("Error"):
        raise RoostError(f"Nomad calls the job {job['ID']} invalid: {answer.get('Error')}")
    return job


def _never_healthy(client: NomadClient, job: dict[str, Json]) -> bool:
    """Say whether the deployment of the registered version failed: Nomad then tries no other of the same text."""
    deployments: list[dict[str, Json]] = client.get(f"job/{quote(job['ID'], safe='')}/deployments") or []
    newest = max(deployments, key=lambda d: int(d["CreateIndex"]), default=None)
    return newest is not None and newest["JobVersion"] == job["Version"] and newest["Status"] in FAILED_STATES


def wants_nothing(job: dict[str, Json]) -> bool:
    """Say whether a job is cold: it is there, and shall run nothing until somebody asks."""
    return all(group.get("Count") == 0 for group in job.get("TaskGroups") or [{}])


def keep_counts(job: dict[str, Json], registered: dict[str, Json] | None) -> None:
    """Let a model server's job stay as warm or cold as it is: its count is the agent's affair while it runs.

    Not where the job says `keep_warm`, and not where the job was stopped as a whole.
    """
    if registered is None or registered.get("Stop") or not str(job["ID"]).startswith(MODEL_SERVICE_PREFIX):
        return
    counts = {group["Name"]: group.get("Count") for group in registered.get("TaskGroups") or []}
    for group in job.get("TaskGroups") or []:
        tags = [tag for service in group.get("Services") or [] for tag in service.get("Tags") or []]
        if KEEP_WARM_TAG not in tags:
            group["Count"] = counts.get(group["Name"], group.get("Count"))


def _alive(client: NomadClient, job_id: str) -> bool:
    registered = client.job(job_id)
    if registered is None or registered.get("Stop"):
        return False
    if registered.get("Status") == "dead" and not wants_nothing(registered):
        return False
    return not _never_healthy(client, registered)


def plan(client: NomadClient, job: dict[str, Json]) -> JobChange:
    """Ask Nomad what running this job would change."""
    answer = client.put(f"job/{quote(job['ID'], safe='')}/plan", {"Job": job, "Diff": True})
    diff = answer["Diff"]
    lines = ["new job"] if diff["Type"] == "Added" else diff_lines(diff)
    if diff["Type"] == "None" and not _alive(client, job["ID"]):
        lines = [REVIVED]
        return JobChange(job["ID"], True, lines, answer.get("Warnings") or "")
    return JobChange(job["ID"], diff["Type"] != "None", lines, answer.get("Warnings") or "")


def failure_reason(client: NomadClient, job_id: str, version: int) -> str:
    """Say in one sentence why the newest allocation of a job's version does not run, as far as Nomad knows.

    Those of another version do not count: Nomad may have gone back to it meanwhile.
    """
    for allocation in [a for a in client.allocations(job_id) if a.get("JobVersion", version) == version][:1]:
        for name, state in (allocation.get("TaskStates") or {}).items():
            messages = [e["DisplayMessage"] for e in state.get("Events") or [] if e.get("DisplayMessage")]
            if messages:
                return f"task {name}: {'; '.join(messages[-3:])}"
        if allocation.get("ClientDescription"):
            return str(allocation["ClientDescription"])
    evaluations: list[dict[str, Json]] = client.get(f"job/{quote(job_id, safe='')}/evaluations") or []
    for evaluation in evaluations:
        for group in (evaluation.get("FailedTGAllocs") or {}).values():
            exhausted = ", ".join(group.get("DimensionExhausted") or {}) or "no node fits"
            filtered = ", ".join(group.get("ConstraintFiltered") or {})
            return f"it cannot be placed: {filtered or exhausted}"
    return "Nomad gives no reason"


def run_and_wait(client: NomadClient, job: dict[str, Json], *, timeout_s: float) -> None:
    """Register a job and wait until its deployment is healthy.

    There is nothing to wait for with a cold one, nor where each machine that it may run on gets no work now.

    Raises:
        RoostError: the deployment failed (Nomad then goes back to the last healthy version by itself, when there is
            one), what was started ends again and again or never answers, or it was not healthy within `timeout_s`
            seconds.
    """
    job_id = job["ID"]
    client.put("jobs", {"Job": job})
    if wants_nothing(job) or _all_out(client, job):
        return
    deadline = time.monotonic() + timeout_s
    version = _registered_version(client, job_id)
    since = 0
    while time.monotonic() < deadline:
        left = max(1.0, min(LOOK_S, deadline - time.monotonic()))
        deployments, since = client.wait_for(f"job/{quote(job_id, safe='')}/deployments", since, left)
        # Going back is a deployment too, of a later version: only that of our own says whether ours is good.
        mine = [d for d in deployments or [] if d["JobVersion"] == version]
        newest = max(mine, key=lambda d: int(d["CreateIndex"]), default=None)
        if newest is None:
            continue
        if newest["Status"] == "successful":
            return
        if newest["Status"] in FAILED_STATES:
            raise RoostError(
                f"The job {job_id} did not become healthy ({newest['StatusDescription']}): "
                f"{failure_reason(client, job_id, version)}.",
                fix=f"Read its log with `roost logs {job_id}`.",
            )
        if never_answered(newest):
            reason = failure_reason(client, job_id, version)
            _give_up(client, newest)
            raise RoostError(
                f"The job {job_id} did not become healthy in the time it has for that: {reason}.",
                fix=f"Read its log with `roost logs {job_id}`.",
            )
        if crashes(client, job_id, version):
            reason = failure_reason(client, job_id, version)
            _give_up(client, newest)
            raise RoostError(
                f"The job {job_id} does not stay up: it ended {CRASHES} times right after its start: {reason}.",
                fix=f"Read its log with `roost logs {job_id}`.",
            )
    raise RoostError(
        f"The job {job_id} was not healthy within {timeout_s:.0f} s: {failure_reason(client, job_id, version)}.",
        fix=f"Read its log with `roost logs {job_id}`.",
    )


def _all_out(client: NomadClient, job: dict[str, Json]) -> bool:
    """Say whether none of the machines that a model server, or its worker, may run on gets work: it begins later."""
    if not str(job["ID"]).startswith((MODEL_SERVICE_PREFIX, RPC_JOB_PREFIX)):
        return False
    named = [str(c["RTarget"]) for c in job.get("Constraints") or [] if c["LTarget"] == BY_NAME]
    allowed = {name for names in named for name in names.split(",")}
    found = [node for node in client.get("nodes") or [] if node["Name"] in allowed] if allowed else []
    return bool(found) and not any(map(gets_work, found))


def never_answered(deployment: dict[str, Json]) -> bool:
    """Say whether an allocation of a deployment had its `healthy_deadline` and was not healthy at its end.

    Nomad itself would try others until the `progress_deadline`, since they may be placed anew without end.
    """
    groups = (deployment.get("TaskGroups") or {}).values()
    return any(int(group.get("UnhealthyAllocs") or 0) > 0 for group in groups)


def _give_up(client: NomadClient, deployment: dict[str, Json]) -> None:
    """Have Nomad try no more, and go back to the last healthy version; it may have come to that by itself."""
    with contextlib.suppress(NomadRefusedError):
        client.put(f"deployment/fail/{deployment['ID']}", None)


def crashes(client: NomadClient, job_id: str, version: int) -> bool:
    """Say whether a task of a job's version ended `CRASHES` times and was started again each time."""
    newest = [a for a in client.allocations(job_id) if a.get("JobVersion") == version][:1]
    states = [state for allocation in newest for state in (allocation.get("TaskStates") or {}).values()]
    return any(int(state.get("Restarts") or 0) >= CRASHES for state in states)


def restore(client: NomadClient, before: dict[str, Json], *, timeout_s: float) -> bool:
    """Make a job what it was, from the definition that Nomad had of it; return whether it was something else.

    Raises:
        RoostError: as `run_and_wait`.
    """
    change = plan(client, before)
    if not change.changed:
        return False
    registered = client.job(before["ID"])
    if change.lines == [REVIVED] and registered is not None and _never_healthy(client, registered):
        stop(client, before["ID"], purge=True, timeout_s=timeout_s)
    run_and_wait(client, before, timeout_s=timeout_s)
    return True


def _registered_version(client: NomadClient, job_id: str) -> int:
    registered = client.job(job_id)
    return int(registered["Version"]) if registered else 0


def apply(client: NomadClient, text: str, *, dry_run: bool, timeout_s: float) -> JobChange:
    """Bring one job to its text: plan; when that shows a change and not `dry_run`, run it and wait.

    Raises:
        RoostError: as `parse` and `run_and_wait`.
    """
    job = parse(client, text)
    keep_counts(job, client.job(job["ID"]))
    change = plan(client, job)
    if change.changed and not dry_run:
        registered = client.job(job["ID"])
        if change.lines == [REVIVED] and registered is not None and _never_healthy(client, registered):
            # A failed deployment is the last word on its version, so the job has to begin anew.
            stop(client, job["ID"], purge=True, timeout_s=timeout_s)
        run_and_wait(client, job, timeout_s=timeout_s)
    return change


def _ended(allocation: dict[str, Json]) -> bool:
    """Say whether nothing of an allocation runs: it counts as failed while a task of it still has its delay to end."""
    status = allocation["ClientStatus"]
    tasks = (allocation.get("TaskStates") or {}).values()
    return status in GONE or (status in ("complete", "failed") and all(t.get("State") == "dead" for t in tasks))


def stop(client: NomadClient, job_id: str, *, purge: bool, timeout_s: float) -> bool:
    """Stop a job and wait until its tasks ended; return whether there was anything to stop.

    Raises:
        RoostError: a task still runs after `timeout_s` seconds.
    """
    if client.job(job_id) is None:
        return False
    path = f"job/{quote(job_id, safe='')}"
    # Purged at once, it would take the list of its allocations with it, and nobody would see that they still run.
    client.request("DELETE", path, params={"purge": "false"})
    deadline = time.monotonic() + timeout_s
    since = 0
    while time.monotonic() < deadline:
        found, since = client.wait_for(f"{path}/allocations", since, BLOCK_S)
        if all(_ended(allocation) for allocation in found or []):
            if purge:
                client.request("DELETE", path, params={"purge": "true"})
            return True
    raise RoostError(f"The job {job_id} still runs {timeout_s:.0f} s after it was told to stop.")
