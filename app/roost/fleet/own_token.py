"""The token with which a server saves snapshots by itself, so that nothing that runs needs the management token.

A file of root's beside the fleet's secrets; each server has its own, and may be told apart and ended by its name.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from roost.fleet.access import ensure_role, grant, grants, revoke
from roost.fleet.nomad_api import NomadClient
from roost.ops.files import write_atomic

ROLE = "snapshots"
FILE = "snapshot-token"


def token_name(node: str) -> str:
    """Return what a server's token is called."""
    return f"{ROLE}-{node}"


def ensure(client: NomadClient, path: Path, node: str, *, dry_run: bool = False) -> bool:
    """Have a server hold a token that Nomad knows; return whether that had to be done.

    Raises:
        RoostError: Nomad makes none.
        OSError: it cannot be written.
    """
    name = token_name(node)
    told = ensure_role(client, ROLE, dry_run=dry_run)
    known = next((found for found in grants(client) if found.name == name), None)
    if known is not None and known.role == ROLE and path.is_file():
        secret = client.get(f"acl/token/{quote(known.accessor, safe='')}")["SecretID"]
        if path.read_text().strip() == secret:
            return told
    if not dry_run:
        if known is not None:
            revoke(client, name)
        _, secret = grant(client, name, ROLE)
        write_atomic(path, f"{secret}\n", mode=0o600)
    return True


def drop(client: NomadClient, path: Path, node: str, *, dry_run: bool = False) -> bool:
    """End the token of a machine that saves no snapshots any more; return whether it had one.

    Raises:
        RoostError: Nomad does not end it.
        OSError: the file cannot be removed.
    """
    had = path.exists() or any(found.name == token_name(node) for found in grants(client))
    if had and not dry_run:
        forget(client, [node])
        path.unlink(missing_ok=True)
    return had


def forget(client: NomadClient, nodes: Collection[str]) -> list[str]:
    """End the tokens of machines that left, by their names in Nomad; return the tokens' names."""
    names = {token_name(node) for node in nodes}
    ended = [found.name for found in grants(client) if found.name in names]
    for name in ended:
        revoke(client, name)
    return ended


def sweep(client: NomadClient, nodes: Collection[str], *, dry_run: bool = False) -> list[str]:
    """End the tokens of all machines but those that save snapshots; return the tokens' names.

    A machine that could not be asked when it left, or has another name now, cannot end its own.
    """
    kept = {token_name(node) for node in nodes}
    ended = [g.name for g in grants(client) if g.role == ROLE and is_own(g.name) and g.name not in kept]
    if not dry_run:
        for name in ended:
            revoke(client, name)
    return ended


def is_own(name: str) -> bool:
    """Say whether a token's name is one that servers' own tokens have."""
    return name.startswith(f"{ROLE}-")
