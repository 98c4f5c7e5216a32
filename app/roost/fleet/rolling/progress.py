"""How far the update of each machine came, for all to see: kept in Nomad beside the machines' own records.

The machine's record decides; this copy is shown by `roost fleet update` and may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.rolling.record import UpdateRecord

VARIABLE = "roost/updates"
ATTEMPTS = 5
CONFLICT, NOT_FOUND = 409, 404
Json = Any


@dataclass(frozen=True)
class Turn:
    """One machine's place in an update: its batch, counted from 1, what it fails together with, and its last update."""

    machine: str
    batch: int
    domain: str
    server: bool
    state: str
    at: str
    release: str
    reason: str


def published(client: NomadClient) -> dict[str, dict[str, str]]:
    """Return what is known of each machine's last update.

    Raises:
        NomadUnreachableError, NomadRefusedError
    """
    return _load(client)[0]


def _load(client: NomadClient) -> tuple[dict[str, dict[str, str]], int]:
    try:
        found = client.get(f"var/{VARIABLE}") or {}
    except NomadRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        return {}, 0
    known: dict[str, dict[str, str]] = {}
    for machine, text in (found.get("Items") or {}).items():
        if (entry := _entry(text)) is not None:
            known[machine] = {str(name): str(value) for name, value in entry.items()}
    return known, int(found["ModifyIndex"])


def _entry(text: str) -> dict[str, Json] | None:
    """Return what is said of one machine; None for what cannot be read: this is a copy, and may be missing."""
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def publish(client: NomadClient, machine: str, record: UpdateRecord) -> bool:
    """Let all see how far a machine's update came; return whether that was possible."""
    said = {name: str(value) for name, value in asdict(record).items() if name in ("state", "at", "release", "reason")}
    for _ in range(ATTEMPTS):
        try:
            known, index = _load(client)
            if known.get(machine) == said:
                return True
            items = {name: json.dumps(entry) for name, entry in {**known, machine: said}.items()}
            body = {"Namespace": "default", "Path": VARIABLE, "Items": items}
            client.put(f"var/{VARIABLE}", body, cas=index)
        except NomadRefusedError as error:
            if error.status == CONFLICT:
                continue
            return False
        except NomadUnreachableError:
            return False
        return True
    return False


def turns(
    order: Sequence[Sequence[str]],
    domains: Mapping[str, str],
    servers: Sequence[str],
    known: Mapping[str, Mapping[str, str]],
) -> list[Turn]:
    """Put the order of an update and what is known of each machine together. Pure."""
    return [
        Turn(
            machine=machine,
            batch=number,
            domain=domains.get(machine, ""),
            server=machine in servers,
            **{name: known.get(machine, {}).get(name, "") for name in ("state", "at", "release", "reason")},
        )
        for number, batch in enumerate(order, 1)
        for machine in batch
    ]
