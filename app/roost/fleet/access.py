"""Who may do what in Nomad: a policy a role, as files in `policies/`, and tokens made for them.

The management token stays with root on the servers; people and programs get one of their role.
ACL: https://developer.hashicorp.com/nomad/docs/secure/acl/policies
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from roost.fleet.agent_variables import ENDPOINTS_VARIABLE
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import NOT_FOUND, RoostError

POLICIES = Path(__file__).with_name("policies")
ROLES = {
    "operator": "runs the fleet: jobs, nodes, drains, snapshots; not access control, not secrets of jobs",
    "read-only": "looks, with Nomad's page: jobs and nodes; no logs, no files, no variables",
    "worker": "what runs tools on a node: finds the hub, changes nothing",
    "snapshots": "saves Nomad's state, which holds its tokens and variables; nothing else",
}
PREFIX = "roost-role-"  # of policies and tokens of ours, so that nobody else's are touched
NO_SUCH = 404  # of Nomad
LONGEST_TTL_S = 86400  # Nomad's default for acl.token_max_expiration_ttl
SHORTEST_TTL_S = 60
BAD_INPUT = 2
Json = dict[str, Any]


@dataclass(frozen=True)
class Grant:
    """A token that was given out. `expires` is empty where it does not end by itself."""

    name: str
    role: str
    accessor: str
    created: str
    expires: str


def policy_rules(name: str) -> str:
    """Return the rules of a policy as Nomad takes them."""
    text = (POLICIES / f"{name}.hcl").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return "\n" + "\n".join(lines).replace("<endpoints>", ENDPOINTS_VARIABLE) + "\n"


def ensure_role(client: NomadClient, role: str, *, dry_run: bool = False) -> bool:
    """Have Nomad know the policy of a role as it stands in our file; return whether it had to be told."""
    name, rules = f"{PREFIX}{role}", policy_rules(role)
    try:
        if client.get(f"acl/policy/{quote(name, safe='')}")["Rules"] == rules:
            return False
    except NomadRefusedError as error:
        if error.status != NO_SUCH:
            raise
    if not dry_run:
        client.put(f"acl/policy/{quote(name, safe='')}", {"Name": name, "Description": ROLES[role], "Rules": rules})
    return True


def grant(client: NomadClient, name: str, role: str, ttl_s: int = 0) -> tuple[Grant, str]:
    """Make a token of a role; return it and its secret, which is told this once.

    Raises:
        RoostError: there is no such role, the name is taken, or Nomad makes no token for so long; exit code 2.
    """
    if role not in ROLES:
        raise RoostError(f"There is no role {role}.", fix=f"Name one of: {', '.join(ROLES)}.", exit_code=BAD_INPUT)
    if ttl_s and not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
        raise RoostError(
            "Nomad makes tokens that end by themselves for 60 s to a day.",
            fix="Leave out --ttl, and revoke the token when it is no longer needed.",
            exit_code=BAD_INPUT,
        )
    if any(known.name == name for known in grants(client)):
        raise RoostError(
            f"There is a token called {name}.", fix=f"Revoke it first: roost fleet access revoke {name}.",
            exit_code=BAD_INPUT,
        )  # fmt: skip
    ensure_role(client, role)
    body: Json = {"Name": f"{PREFIX}{name}", "Type": "client", "Policies": [f"{PREFIX}{role}"], "Global": False}
    if ttl_s:
        body["ExpirationTTL"] = f"{ttl_s}s"
    made = client.put("acl/token", body)
    return _grant(made), str(made["SecretID"])


def grants(client: NomadClient) -> list[Grant]:
    """Return the tokens of roles, by name."""
    listed = client.get("acl/tokens") or []
    ours = [_grant(t) for t in listed if t["Type"] == "client" and str(t["Name"]).startswith(PREFIX)]
    return sorted(ours, key=lambda found: found.name)


def revoke(client: NomadClient, name: str) -> None:
    """End a token.

    Raises:
        RoostError: there is none of that name; exit code 2.
    """
    for known in grants(client):
        if known.name == name:
            client.request("DELETE", f"acl/token/{quote(known.accessor, safe='')}")
            return
    raise RoostError(f"There is no token called {name}.", fix="See `roost fleet access list`.", exit_code=NOT_FOUND)


def _grant(token: Json) -> Grant:
    policies = [str(name).removeprefix(PREFIX) for name in token.get("Policies") or []]
    return Grant(
        name=str(token["Name"]).removeprefix(PREFIX),
        role=", ".join(policies),
        accessor=str(token["AccessorID"]),
        created=str(token.get("CreateTime") or ""),
        expires=str(token.get("ExpirationTime") or ""),
    )
