"""Which host volumes the nodes of a fleet have: a job that wants one is placed nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.parse import quote

from roost.fleet.nomad_api import Json

# Where a machine's Nomad finds the certificate of the gateway on it (`nomad.hcl.j2`).
GATEWAY_TLS = "roost-gateway-tls"
DOWN = "down"


class Nomad(Protocol):
    """What is asked of Nomad; the one adapter is `NomadClient`."""

    def get(self, path: str) -> Json:
        """GET below `/v1/`."""


def all_have(nodes: Iterable[Mapping[str, Json]], volume: str) -> bool:
    """Say whether each node, as `GET /v1/node/ID` describes it, has a volume; one that is down can run nothing."""
    up = [node for node in nodes if node["Status"] != DOWN]
    return bool(up) and all(volume in (node.get("HostVolumes") or {}) for node in up)


def described(nomad: Nomad) -> list[Mapping[str, Json]]:
    """Return all nodes of a fleet with their volumes."""
    return [nomad.get(f"node/{quote(str(stub['ID']), safe='')}") for stub in nomad.get("nodes") or []]
