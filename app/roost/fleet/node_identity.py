"""Whether the servers refuse a machine's Nomad, since what signed its node's identity was lost with their state.

Nomad 1.11 (client/client.go): with each heartbeat a client shows the identity that a server signed; one that is refused
it repeats for ever. Only a refused registration is repeated without it, and a client registers when it starts. So its
Nomad has to begin anew, and what it keeps on its disk may stay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from roost.fleet.nomad_api import Json, NomadRefusedError, NomadUnreachableError

ACL = "acl"
BEGUN = "Nomad begun anew"
# A client whose heartbeats fail tries again within 30 s.
RETRY_S = 40.0
POLL_S = 1.0
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}


class Nomad(Protocol):
    """What is asked of Nomad; the one adapter is `NomadClient`."""

    def get(self, path: str) -> Json:
        """GET below `/v1/`."""

    def put(self, path: str, body: Json) -> Json:
        """PUT below `/v1/`."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When a server last accepted a client's, in seconds before now, and for how long it counts."""

    ago_s: float
    ttl_s: float

    @property
    def overdue(self) -> bool:
        """Whether another one should have been accepted long since."""
        return self.ago_s > 2 * self.ttl_s


def seconds(duration: str) -> float:
    """Return the seconds of a duration as Go writes it: `1h2m3.5s`, `350ms` (https://pkg.go.dev/time#Duration.String).

    Raises:
        ValueError: it is none.
    """
    if not duration or _PART.sub("", duration):
        raise ValueError(f"no duration: {duration!r}")
    return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(duration))


def heartbeat(nomad: Nomad) -> Heartbeat | None:
    """Ask a machine's own Nomad; None where it is no client, or does not know who asks."""
    try:
        found = nomad.get("agent/self")
    except NomadRefusedError:
        return None
    stats = found.get("stats", {}) if isinstance(found, dict) else {}
    client = stats.get("client") or {}
    try:
        return Heartbeat(seconds(client["last_heartbeat"]), seconds(client["heartbeat_ttl"]))
    except (KeyError, ValueError):
        return None


def is_silent(nomad: Nomad, timeout_s: float = RETRY_S) -> bool:
    """Say whether no server accepts the client's heartbeats, though there is a leader.

    One whose servers were away until now gets `timeout_s` seconds to try again.
    """
    deadline = time.monotonic() + timeout_s
    while (last := heartbeat(nomad)) is not None and last.overdue:
        if time.monotonic() >= deadline:
            return True
        time.sleep(POLL_S)
    return False


def renew(nomad: Nomad) -> list[str]:
    """Have every client ask for another identity with its next heartbeat; return the names of those not reached.

    For after a restore: what the servers signed until then is refused once they begin anew, without the keys for it.
    """
    missed = []
    for stub in nomad.get("nodes") or []:
        try:
            nomad.put("client/identity/renew", {"NodeID": stub["ID"]})
        except (NomadRefusedError, NomadUnreachableError):
            missed.append(str(stub["Name"]))
    return missed


def set_up_anew(made: Collection[str], *, first: bool, at_work: bool, begun: bool) -> bool:
    """Say whether a machine's identity went with the state of the servers.

    Args:
        made: what had to be set up in this run so far; access control that is new means a state that is new.
        first: whether this is the machine that sets it up, whose Nomad began anew when it lost its state.
        at_work: whether the machine was part of the fleet before this run.
        begun: whether this run has begun its Nomad anew already, and it has registered since.
    """
    return ACL in made and at_work and not first and not begun
