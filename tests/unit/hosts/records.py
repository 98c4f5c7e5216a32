"""Machines as texts: what a collector finds on each, and what should be read from it.

`machines/NAME/seen.txt` has sections that begin with `== KIND ARGUMENT`:

| kind | what follows |
|---|---|
| `source` | where the texts, or their format and numbers, are from |
| `file PATH`, `ask NAME` | a file's text, a program's answer; NUL is written `\\0` |
| `cpus COUNT CORES SOCKETS` | one block of /proc/cpuinfo without its numbers, to be repeated |
| `uname`, `present`, `limits`, `quotas` | the fields of `RawFacts` |
| `pci` | slot, class, vendor, device, driver (`-`: none) a line |
| `nodes` | path, group's number, slot (`-`: every card's) a line |
| `block` | name, number, rotational (`-`: unknown), what lies below a line |
| `disks` | path and device number a line |

`expected.json` names what is to be read; what it does not name is not looked at.
"""

from __future__ import annotations

import re
from pathlib import Path

from roost.hosts.disks import BlockDevice
from roost.hosts.facts import Disk, RawFacts
from roost.hosts.gpus import DeviceNode, PciDevice

FOLDER = Path(__file__).parent / "machines"


def names() -> list[str]:
    """Return all machines."""
    return sorted(path.parent.name for path in FOLDER.glob("*/seen.txt"))


def sections(name: str) -> dict[str, str]:
    """Return title -> text of a machine's sections."""
    parts = re.split(r"^== (.*)\n", (FOLDER / name / "seen.txt").read_text(), flags=re.MULTILINE)
    return {parts[i]: parts[i + 1].replace("\\0", "\0") for i in range(1, len(parts), 2)}


def record(name: str) -> RawFacts:
    """Return what was collected on a machine."""
    found = sections(name)
    files = {title[5:]: text for title, text in found.items() if title.startswith("file ")}
    for title, text in found.items():
        if title.startswith("cpus "):
            files["/proc/cpuinfo"] = cpuinfo(text, *(int(word) for word in title.split()[1:]))
    system, release, arch = found.get("uname", "machine 6.1.0 x86_64").split()
    return RawFacts(
        files=files,
        asked={title[4:]: text for title, text in found.items() if title.startswith("ask ")},
        uname=(system, release, arch),
        present=tuple(found.get("present", "").split()),
        memory_limits=tuple(found.get("limits", "").splitlines()),
        cpu_limits=tuple(found.get("quotas", "").splitlines()),
        pci=tuple(_pci(line) for line in found.get("pci", "").splitlines()),
        nodes=tuple(_node(line) for line in found.get("nodes", "").splitlines()),
        block=tuple(_block(line) for line in found.get("block", "").splitlines()),
        disks=tuple(_disk(line) for line in found.get("disks", "").splitlines()),
    )


def cpuinfo(block: str, count: int, cores: int, sockets: int) -> str:
    """Write /proc/cpuinfo of so many processors on so many cores in all; siblings are numbered last, as Linux does."""
    blocks: list[str] = []
    for number in range(count):
        core = number % cores
        ids = f"physical id\t: {core * sockets // cores}\ncore id\t\t: {core % (cores // sockets)}\n"
        blocks.append(f"processor\t: {number}\n{block.rstrip()}\n{ids if 'flags' in block else ''}")
    return "\n".join(blocks) + "\n"


def _pci(line: str) -> PciDevice:
    slot, kind, vendor, device, driver = line.split()
    return PciDevice(slot, kind, vendor, device, "" if driver == "-" else driver)


def _node(line: str) -> DeviceNode:
    path, gid, slot = line.split()
    return DeviceNode(path, int(gid), "" if slot == "-" else slot)


def _block(line: str) -> BlockDevice:
    name, number, rotational, *below = line.split()
    return BlockDevice(name, number, None if rotational == "-" else rotational == "1", tuple(below))


def _disk(line: str) -> Disk:
    path, number = line.split()
    return Disk(path, 0, 100_000, 50_000, writable=True, number=number)
