"""Which graphics processors are here: pure readers of sysfs, lspci and nvidia-smi. Standard library only."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

VENDORS = {"10de": "NVIDIA", "1002": "AMD", "8086": "Intel"}
DISPLAY_CLASS = "03"  # PCI base class of display controllers
ACCELERATOR_CLASS = "12"  # processing accelerators
SLOT = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)


@dataclass(frozen=True)
class PciDevice:
    """One line of sysfs: slot `0000:01:00.0`, class, vendor and device as hex digits, bound driver or empty."""

    slot: str
    kind: str
    vendor: str
    device: str
    driver: str = ""


@dataclass(frozen=True)
class Gpu:
    """A graphics processor that could compute; `memory_mib` is 0 where only its driver would know."""

    slot: str
    vendor: str
    name: str
    driver: str
    memory_mib: int = 0


def normal_slot(text: str) -> str:
    """Write a PCI address the way sysfs does: `0000:01:00.0`; unknown forms stay as they are."""
    found = SLOT.search(text)
    if not found:
        return text
    domain, bus, device, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}".lower()


def lspci_names(text: str) -> dict[str, str]:
    """Return slot -> device name from `lspci -mm`."""
    names: dict[str, str] = {}
    for row in csv.reader(text.splitlines(), delimiter=" ", skipinitialspace=True):
        if len(row) >= 4:
            names[normal_slot(row[0])] = row[3]
    return names


def nvidia_rows(text: str) -> dict[str, tuple[str, int]]:
    """Return slot -> name and memory in MiB.

    Reads `nvidia-smi --query-gpu=pci.bus_id,name,memory.total --format=csv,noheader,nounits`.
    """
    rows: dict[str, tuple[str, int]] = {}
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 3 and SLOT.search(row[0]):
            rows[normal_slot(row[0])] = (row[1], int(row[2]) if row[2].isdigit() else 0)
    return rows


def find(devices: Sequence[PciDevice], lspci: str, nvidia_smi: str) -> tuple[Gpu, ...]:
    """Return the graphics processors of vendors that make ones for computing; virtual displays do not count."""
    names, nvidia = lspci_names(lspci), nvidia_rows(nvidia_smi)
    found: list[Gpu] = []
    for device in devices:
        if device.kind[:2] not in (DISPLAY_CLASS, ACCELERATOR_CLASS) or device.vendor not in VENDORS:
            continue
        name, memory = nvidia.pop(device.slot, (names.get(device.slot, f"device {device.device}"), 0))
        found.append(Gpu(device.slot, VENDORS[device.vendor], name, device.driver, memory))
    # in a container the driver's tool may know cards that sysfs does not show
    found += [Gpu(slot, "NVIDIA", name, "nvidia", memory) for slot, (name, memory) in sorted(nvidia.items())]
    return tuple(found)
