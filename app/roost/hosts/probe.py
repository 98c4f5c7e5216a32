"""A machine that has nothing but a shell, as facts: the script that looks, and the reading of what it prints.

The script changes nothing there; what it collects is what `roost.hosts.collect` collects with Python, as far as
preflight needs it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from roost.hosts.collect import CLOCK_WITNESSES, FILES, MARKS, PROGRAMS
from roost.hosts.facts import Disk, HostFacts, RawFacts, facts_from
from roost.hosts.gpus import PciDevice
from roost.hosts.registries import ONLY_RELEASE_FILES, reason
from roost.ops.errors import RoostError

SCRIPT = Path(__file__).with_name("probe.sh")
SECTION = re.compile(r"^\n?== (.+)\n", re.MULTILINE)
KIB = 1024


@dataclass(frozen=True)
class Probed:
    """What was seen. `installed`: Roost was set up there. `apt` says why its registry is out of reach, if it is."""

    facts: HostFacts
    installed: bool
    apt: str = ""
    unresolved: tuple[str, ...] = ()


def script(paths: Sequence[str], site_file: str, *, ask_apt: bool, extra_ca_bundle: str = "") -> str:
    """Return the shell script for a machine; `paths` are places whose disk matters."""
    options = list(ONLY_RELEASE_FILES)
    if extra_ca_bundle:
        options += ["-o", f"Acquire::https::CAInfo={extra_ca_bundle}"]
    variables = {
        "files": " ".join(FILES),
        "marks": " ".join(MARKS),
        "programs": " ".join(PROGRAMS),
        "witnesses": " ".join(CLOCK_WITNESSES),
        "paths": " ".join(paths),
        "site": site_file,
        "ask_apt": "yes" if ask_apt else "",
        "apt_options": " ".join(options),
    }
    head = "".join(f"{name}={shlex.quote(text)}\n" for name, text in variables.items())
    return head + SCRIPT.read_text()


def read(text: str) -> Probed:
    """Read what the script printed.

    Raises:
        RoostError: it was cut off.
    """
    parts = SECTION.split(text.replace("\r\n", "\n"))
    found = {title: body.strip("\n") for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    if "end" not in found:
        raise RoostError("The machine broke off while it was looked at.", fix="Look whether SSH works, and try again.")

    def lines(title: str) -> list[str]:
        return [line for line in found.get(title, "").splitlines() if line.strip()]

    node, release, machine = lines("uname")
    raw = RawFacts(
        files={title[5:]: f"{body}\n" for title, body in found.items() if title.startswith("file ")},
        asked={title[4:]: body for title, body in found.items() if title.startswith("ask ")},
        uname=(node, release, machine),
        present=tuple(lines("present")),
        uid=int(found["uid"]),
        cores_allowed=int(found["cores"]),
        cgroup_writable=bool(lines("cgroup-writable")),
        pci=tuple(_pci(line) for line in lines("pci")),
        socket_owners=dict(_owner(line) for line in lines("sockets")),
        disks=tuple(_disk(line) for line in lines("disks")),
        clock=float(found["clock"]),
        clock_floor=max((float(line) for line in lines("witnesses")), default=0.0),
    )
    addresses = [str(ip_address(word)) for word in found.get("addresses", "").split()]
    facts = replace(
        facts_from(raw),
        addresses={"": tuple(addresses)} if addresses else {},
        default_address=addresses[0] if addresses else "",
    )
    said = reason(found["apt"]) if lines("apt") else ""
    return Probed(facts, installed=bool(lines("installed")), apt=said, unresolved=tuple(lines("unresolved")))


def _pci(line: str) -> PciDevice:
    slot, kind, vendor, device, *driver = line.split()
    plain = (word.removeprefix("0x") for word in (kind, vendor, device))
    return PciDevice(slot, *plain, *driver)


def _owner(line: str) -> tuple[str, tuple[int, str, str]]:
    pid, inode, name, *command = line.split(" ", 3)
    return inode, (int(pid), name, command[0].strip() if command else "")


def _disk(line: str) -> Disk:
    path, device, free, total, mode = line.split()
    return Disk(path, int(device), int(total) // KIB, int(free) // KIB, writable=mode == "rw")
