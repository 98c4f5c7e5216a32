"""From variables of group_vars/all.yaml to what an installation needs of a machine. Pure. Standard library only.

The role preflight and `roost doctor` ask the same questions because both ask here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roost.hosts.preflight import PortWish, Wishes

Variables = Mapping[str, Any]
INSTALLED_SHARE = 10  # what is installed already needs no more than a part of the disk
CACHE_SHARE = 4


def wishes_from(variables: Variables, *, installed: bool, here: str) -> Wishes:
    """Return the wishes. `here` is the address of the machine's default route; empty where there is none."""
    need = int(variables["preflight_min_disk_mib"]) // (INSTALLED_SHARE if installed else 1)
    return Wishes(
        runtime=str(variables["roost_runtime"]),
        engine=str(variables["engine"]),
        offline=bool(variables["roost_offline_dir"]),
        min_memory_mib=int(variables["preflight_min_memory_mib"]),
        disks={str(variables["roost_state_dir"]): need, str(variables["roost_cache_dir"]): need // CACHE_SHARE},
        ports=_ports(variables, here),
        listen_address=str(variables["api_listen_address"]),
        gateways=int(variables["gateway_replicas"]) > 0,
        our_paths=[str(variables[f"roost_{name}_dir"]) for name in ("install", "state", "config")],
        our_uids=[int(variables[f"roost_{name}_uid"]) for name in ("agent", "engine", "monitoring", "search")],
        docker_min_version=str(variables["docker_min_version"]),
    )


def _ports(variables: Variables, here: str) -> list[PortWish]:
    loopback = str(variables["loopback_address"])
    node = str(variables["node_address"] or here or loopback)
    wanted = [
        ("nomad_http_port", loopback),
        ("nomad_rpc_port", node),
        ("nomad_serf_port", node),
        ("api_port", loopback),
    ]
    if variables["api_listen_address"]:
        wanted.append(("api_listen_port", str(variables["api_listen_address"])))
    if _is_on(variables["monitoring"]):
        wanted.append(("monitoring_port", loopback))
    if _is_on(variables["web_search"]):
        wanted.append(("web_search_port", loopback))
    return [PortWish(name, int(variables[name]), address) for name, address in wanted]


def _is_on(value: object) -> bool:
    return str(value).strip().lower() in {"true", "yes", "on", "1"}
