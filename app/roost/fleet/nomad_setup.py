"""Set up a running Nomad: leader, ACL, the agent's policy, the secrets that jobs read."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from urllib.parse import quote

from roost.fleet.access import policy_rules
from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.ops.errors import RoostError

POLL_S = 0.25
FORBIDDEN = 403
NOT_FOUND = 404

# What jobs may do with their workload identity.
AGENT_POLICY = policy_rules("agent")
GATEWAY_POLICY = policy_rules("gateway")


def wait_for_leader(client: NomadClient, timeout_s: float) -> str:
    """Wait until Nomad answers and has a leader; return its address.

    Raises:
        RoostError: there is none within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    problem = "it has no leader"
    while time.monotonic() < deadline:
        try:
            if leader := client.leader():
                return leader
        except (NomadUnreachableError, NomadRefusedError) as error:
            problem = error.message
        time.sleep(POLL_S)
    raise RoostError(
        f"Nomad is not ready after {timeout_s:.0f} s: {problem}.", fix="Read its log with `roost logs nomad`."
    )


def wait_for_node(client: NomadClient, timeout_s: float, driver: str, name: str = "") -> None:
    """Wait until a node is ready and `driver` is healthy on it: the one called `name`, or any.

    Until another machine has set up the access control the token is not known, so a refusal is waited for too.

    Raises:
        RoostError: not within `timeout_s` seconds; the message says what the driver reports.
    """
    deadline = time.monotonic() + timeout_s
    problem = "no node has registered"
    while time.monotonic() < deadline:
        try:
            stubs = client.get("nodes") or []
        except NomadRefusedError as error:
            if error.status not in (FORBIDDEN, NOT_FOUND):
                raise
            stubs, problem = [], error.message
        for stub in stubs:
            if name and stub["Name"] != name:
                continue
            state = (stub.get("Drivers") or {}).get(driver) or {}
            if stub["Status"] == "ready" and state.get("Healthy"):
                return
            problem = f"node {stub['Name']} is {stub['Status']}, driver {driver}: " + str(
                state.get("HealthDescription") or "not detected"
            )
        time.sleep(POLL_S)
    raise RoostError(
        f"Nomad's client is not ready after {timeout_s:.0f} s: {problem}.",
        fix="Read its log with `roost logs nomad`.",
    )


def ensure_acl(client: NomadClient, anonymous: NomadClient, token: str, *, dry_run: bool = False) -> bool:
    """Make `token` the first management token; return whether that had to be done.

    `client` uses the token, `anonymous` none. The token is chosen by us beforehand, so a crash in between loses
    nothing: the next run finds that it works.

    Raises:
        RoostError: the ACL was set up with another token, or there is none: Nomad would make up one that nobody knows.
    """
    if not token and not dry_run:
        raise RoostError("There is no operator token for Nomad.", fix="Run ./bootstrap.sh: it makes one.")
    try:
        client.get("acl/token/self")
    except NomadRefusedError as error:
        if error.status not in (FORBIDDEN, NOT_FOUND):
            raise
    else:
        return False
    if dry_run:
        return True
    try:
        anonymous.put("acl/bootstrap", {"BootstrapSecret": token})
    except NomadRefusedError as error:
        raise RoostError(
            f"Nomad does not know our operator token and refuses a new one: {error.text.strip()}",
            fix="Put the token that it was set up with into the file secrets/nomad-operator-token; "
            "or reset it as Nomad's manual says under 'ACL bootstrap reset'.",
        ) from None
    return True


def ensure_job_policy(client: NomadClient, job: str, rules: str, *, dry_run: bool = False) -> bool:
    """Attach ACL rules to a job's workload identity; return whether something changed."""
    try:
        current = client.get(f"acl/policy/{quote(job, safe='')}")
        if current["Rules"] == rules and (current.get("JobACL") or {}).get("JobID") == job:
            return False
    except NomadRefusedError as error:
        if error.status != NOT_FOUND:
            raise
    if not dry_run:
        body = {
            "Name": job,
            "Description": f"What {job} may do with its workload identity",
            "Rules": rules,
            "JobACL": {"Namespace": "default", "JobID": job},
        }
        client.put(f"acl/policy/{quote(job, safe='')}", body)
    return True


def ensure_variable(client: NomadClient, path: str, items: Mapping[str, str], *, dry_run: bool = False) -> bool:
    """Store a Nomad variable; return whether its items changed."""
    return _store(client, path, _items(client, path), items, dry_run=dry_run)


def widen_variable(client: NomadClient, path: str, items: Mapping[str, str], *, dry_run: bool = False) -> bool:
    """Store items in a Nomad variable beside others that are there; return whether anything changed."""
    current = _items(client, path)
    return _store(client, path, current, {**(current or {}), **items}, dry_run=dry_run)


def narrow_variable(client: NomadClient, path: str, names: Collection[str], *, dry_run: bool = False) -> bool:
    """Remove the other items of a Nomad variable, if it is there; return whether there were any."""
    current = _items(client, path)
    if current is None:
        return False
    return _store(client, path, current, {k: v for k, v in current.items() if k in names}, dry_run=dry_run)


def _items(client: NomadClient, path: str) -> dict[str, str] | None:
    try:
        return (client.get(f"var/{path}") or {}).get("Items")
    except NomadRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        return None


def _store(
    client: NomadClient, path: str, current: Mapping[str, str] | None, items: Mapping[str, str], *, dry_run: bool
) -> bool:
    if current == dict(items):
        return False
    if not dry_run:
        client.put(f"var/{path}", {"Namespace": "default", "Path": path, "Items": dict(items)})
    return True
