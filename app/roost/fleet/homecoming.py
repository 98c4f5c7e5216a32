"""What a spare runs goes back to the machine that it is planned for, once that one is there again.

Nomad does this by itself where a machine was lost and returned (`disconnect` in nomad/model-server.nomad.hcl.j2). After
a drain, where it was first placed while its machine was away, or where Nomad's client failed it as it restored it after
a boot (it may ask its own server before that can answer), it stays on the spare until it is told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from roost.fleet.membership import READY, RUNNING
from roost.fleet.nomad_api import NomadClient

Json = Any
BLOCK_S = 5.0


def strangers(client: NomadClient, node: str, jobs: Sequence[str]) -> list[tuple[str, str]]:
    """Return job and allocation of what runs on a spare though its machine may have work."""
    if not jobs:
        return []
    stub = next((n for n in client.get("nodes") or [] if n["Name"] == node), None)
    if stub is None or stub["Status"] != READY or stub["SchedulingEligibility"] != "eligible":
        return []
    found = []
    for job in jobs:
        running = [a for a in client.allocations(job) if _runs(a)]
        if running and all(a["NodeName"] != node for a in running):
            found += [(job, str(a["ID"])) for a in running]
    return found


def bring_home(
    client: NomadClient, node: str, jobs: Sequence[str], *, dry_run: bool, timeout_s: float
) -> dict[str, bool]:
    """Have jobs run on the machine that they are planned for; return those that did not, and whether they do now.

    The server on the spare ends first: memory was planned for one of them at a time.
    """
    away = strangers(client, node, jobs)
    for _, allocation in [] if dry_run else away:
        client.put(f"allocation/{allocation}/stop", None)
    return {job: dry_run or _runs_there(client, node, job, timeout_s) for job, _ in away}


def _runs_there(client: NomadClient, node: str, job: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    since = 0
    while time.monotonic() < deadline:
        found, since = client.wait_for(f"job/{quote(job, safe='')}/allocations", since, BLOCK_S)
        if any(_runs(a) and a["ClientStatus"] == "running" and a["NodeName"] == node for a in found or []):
            return True
    return False


def _runs(allocation: Json) -> bool:
    return allocation["ClientStatus"] in RUNNING and allocation.get("DesiredStatus", "run") == "run"
