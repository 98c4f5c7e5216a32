"""The gate behind a machine's update: it may have work, what it runs is healthy, and each model on it gives a token."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from roost.fleet.jobs import MODEL_SERVICE_PREFIX, TLS_TAG, machine_of
from roost.fleet.membership import READY, resume, taken_out, was_to_leave
from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.rolling.endpoint_drains import open_again
from roost.ops.errors import RoostError

Json = Any
POLL_S = 0.5
ASK_TIMEOUT_S = 30.0
QUESTION = {"prompt": "Hi", "max_tokens": 1}


@dataclass(frozen=True)
class Server:
    """Where a model server answers, and the job that it is of."""

    job: str
    address: str
    port: int
    tls: bool


@dataclass(frozen=True)
class Passed:
    """A machine behind its gate: whether it was given work or requests again; whether it is out, taken out by hand."""

    given_back: bool
    out: bool


@dataclass(frozen=True)
class Asker:
    """How model servers are asked: with their key, and the authority's certificate where they answer with TLS."""

    key: str
    ca: Path

    def token(self, server: Server, timeout_s: float = ASK_TIMEOUT_S) -> str:
        """Have a model server make one token; return why it did not, or nothing."""
        try:
            status, _ = self._ask(server, "POST", "/v1/completions", json.dumps(QUESTION), timeout_s)
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        return "" if status == http.client.OK else f"HTTP {status}"

    def working(self, server: Server) -> int | None:
        """Return how many requests a model server works on; None where it does not say."""
        try:
            status, body = self._ask(server, "GET", "/slots", None, ASK_TIMEOUT_S)
            slots = json.loads(body) if status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return sum(bool(slot.get("is_processing")) for slot in slots) if isinstance(slots, list) else None

    def _ask(self, server: Server, method: str, path: str, body: str | None, timeout_s: float) -> tuple[int, bytes]:
        connection: http.client.HTTPConnection
        if server.tls:
            context = ssl.create_default_context(cafile=str(self.ca))
            connection = http.client.HTTPSConnection(server.address, server.port, timeout=timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(server.address, server.port, timeout=timeout_s)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def wanted_jobs(client: NomadClient, node: str) -> list[Json]:
    """Return the definitions of the model servers that shall run on a machine now; those that only talk."""
    found = []
    for listed in client.list_jobs():
        if listed.get("Stop") or not str(listed["ID"]).startswith(MODEL_SERVICE_PREFIX):
            continue
        if machine_of(listed) not in {"", node}:
            continue
        job = client.job(listed["ID"])
        if job and any(group["Count"] for group in job["TaskGroups"]):
            found.append(job)
    return found


def machines(client: NomadClient) -> dict[str, str]:
    """Return the machine of each model server's job; empty where a job names none."""
    listed = [job for job in client.list_jobs() if str(job["ID"]).startswith(MODEL_SERVICE_PREFIX)]
    return {str(job["ID"]): machine_of(job) for job in listed}


def servers_of(client: NomadClient, job: Json) -> list[Server]:
    """Return all model servers that run under a job's service, on whichever machine and of whichever job."""
    service = str(job["TaskGroups"][0]["Services"][0]["Name"])
    return [
        Server(r["JobID"], r["Address"], r["Port"], TLS_TAG in (r.get("Tags") or ()))
        for r in client.get(f"service/{quote(service, safe='')}") or []
    ]


def only_encodes(job: Json) -> bool:
    """Say whether a job's server makes embeddings only, and would refuse to be asked for a token."""
    return any("--embedding" in str(task["Config"].get("args")) for task in job["TaskGroups"][0]["Tasks"])


def problem(client: NomadClient, node: str, ask: Asker, version: str = "") -> str:
    """Return why a machine is not as it should be after an update, or nothing; `version` is what Nomad should be.

    One that somebody took out by hand need not run what belongs on it; what does run there answers.
    """
    stub = next((n for n in client.get("nodes") or [] if n["Name"] == node), None)
    if stub is None or stub["Status"] != READY:
        return f"its node is {stub['Status'] if stub else 'not there'}"
    if version and stub.get("Version") != version:
        return f"its Nomad is {stub.get('Version')}, not {version}"
    if was_to_leave(stub):
        return "it gets no work, for it was to leave the fleet"
    for job in wanted_jobs(client, node):
        mine = next((server for server in servers_of(client, job) if server.job == job["ID"]), None)
        if mine is None and taken_out(stub):
            continue
        if mine is None:
            return f"{job['ID']} does not run"
        if only_encodes(job):
            continue
        if why := ask.token(mine):
            return f"the model of {job['ID']} does not answer ({why})"
    return ""


def pass_gate(client: NomadClient, node: str, ask: Asker, timeout_s: float, version: str = "") -> Passed:
    """Let a machine that was to leave have work again, and wait until it does what belongs on it.

    Its servers get requests of clients again once they have answered, not before. Who was taken out by hand stays out.

    Raises:
        RoostError: it is not as it should be after `timeout_s` seconds.
    """
    resumed = resume(client, [node])
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = problem(client, node, ask, version)
        except (NomadUnreachableError, NomadRefusedError) as error:
            found = error.message
        if not found:
            reopened = open_again(client, machines(client), node)
            return Passed(reopened or resumed, any(n["Name"] == node and taken_out(n) for n in client.get("nodes")))
        if time.monotonic() > deadline:
            raise RoostError(
                f"After its update {node} is not as it should be: {found}. Machines after it were left as they are.",
                fix=f"See `roost logs` and `roost doctor` on {node}, correct it, and run it again: it goes on there.",
            )
        time.sleep(POLL_S)
