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

from roost.fleet.jobs import MODEL_SERVICE_PREFIX, machine_of
from roost.fleet.membership import READY, resume
from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.ops.errors import RoostError

Json = Any
POLL_S = 0.5
ASK_TIMEOUT_S = 30.0
QUESTION = {"prompt": "Hi", "max_tokens": 1}


@dataclass(frozen=True)
class Asker:
    """How model servers are asked: with their key, and the authority's certificate where they answer with TLS."""

    key: str
    ca: Path

    def token(self, address: str, port: int, *, tls: bool) -> str:
        """Have a model server make one token; return why it did not, or nothing."""
        connection: http.client.HTTPConnection
        if tls:
            context = ssl.create_default_context(cafile=str(self.ca))
            connection = http.client.HTTPSConnection(address, port, timeout=ASK_TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(address, port, timeout=ASK_TIMEOUT_S)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        try:
            connection.request("POST", "/v1/completions", json.dumps(QUESTION), headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()
        return "" if answer.status == http.client.OK else f"HTTP {answer.status}"


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


def problem(client: NomadClient, node: str, ask: Asker) -> str:
    """Return why a machine is not as it should be after an update, or nothing."""
    stub = next((n for n in client.get("nodes") or [] if n["Name"] == node), None)
    if stub is None or stub["Status"] != READY:
        return f"its node is {stub['Status'] if stub else 'not there'}"
    for job in wanted_jobs(client, node):
        service = job["TaskGroups"][0]["Services"][0]
        tags = service.get("Tags") or []
        registered = client.get(f"service/{quote(service['Name'], safe='')}") or []
        mine = next((r for r in registered if r["JobID"] == job["ID"]), None)
        if mine is None:
            return f"{job['ID']} does not run"
        if any("--embedding" in str(task["Config"].get("args")) for task in job["TaskGroups"][0]["Tasks"]):
            continue
        if why := ask.token(mine["Address"], mine["Port"], tls="tls=true" in tags):
            return f"the model of {job['ID']} does not answer ({why})"
    return ""


def pass_gate(client: NomadClient, node: str, ask: Asker, timeout_s: float) -> bool:
    """Let a machine have work again, and wait until it does it; return whether it had been without.

    Raises:
        RoostError: it is not as it should be after `timeout_s` seconds.
    """
    resumed = resume(client, [node])
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = problem(client, node, ask)
        except (NomadUnreachableError, NomadRefusedError) as error:
            found = error.message
        if not found:
            return resumed
        if time.monotonic() > deadline:
            raise RoostError(
                f"After its update {node} is not as it should be: {found}. Machines after it were left as they are.",
                fix=f"See `roost logs` and `roost doctor` on {node}, correct it, and run it again: it goes on there.",
            )
        time.sleep(POLL_S)
