"""Machines of which `collect_raw` was once written down, for tests without them."""

from __future__ import annotations

import json
from pathlib import Path

from roost.hosts.facts import Disk, RawFacts
from roost.hosts.gpus import PciDevice

FOLDER = Path(__file__).parent / "machines"


def machine(name: str) -> RawFacts:
    """Read one machine."""
    data = json.loads((FOLDER / f"{name}.json").read_text())
    return RawFacts(
        files=data["files"],
        asked=data["asked"],
        uname=tuple(data["uname"]),
        present=tuple(data["present"]),
        uid=data["uid"],
        cores_allowed=data["cores_allowed"],
        memory_limits=tuple(data["memory_limits"]),
        cgroup_writable=data["cgroup_writable"],
        netlink=bytes.fromhex(data["netlink"]),
        interfaces={int(index): name for index, name in data["interfaces"].items()},
        pci=tuple(PciDevice(**device) for device in data["pci"]),
        socket_owners={inode: (int(o[0]), str(o[1]), str(o[2])) for inode, o in data["socket_owners"].items()},
        disks=tuple(Disk(**disk) for disk in data["disks"]),
        clock=data["clock"],
        clock_floor=data["clock_floor"],
    )
