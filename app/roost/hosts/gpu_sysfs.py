"""What sysfs says of graphics memory: AMD, Intel, Apple. Pure. Standard library only, Python 3.9+.

Sources: amdgpu's mem_info_* (kernel, Documentation/gpu/amdgpu/driver-misc.rst), xe's physical_vram_size_bytes (as
read by igt-gpu-tools), i915's lmem_total_bytes (Intel's own builds only), PCI's `resource`
(Documentation/PCI/sysfs-pci.rst).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIB = 1 << 20
PCI = "/sys/bus/pci/devices"
# An APU's own memory is what its firmware cut off the machine's; a card never has so little beside so much.
APU_DEVICES = {
    "1586": "Strix Halo", "150e": "Strix Point", "1114": "Krackan Point", "15bf": "Phoenix", "15c8": "Phoenix",
    "1900": "Hawk Point", "1901": "Hawk Point", "164e": "Raphael", "13c0": "Granite Ridge", "1681": "Rembrandt",
    "1638": "Cezanne", "164c": "Lucienne", "1636": "Renoir", "15d8": "Picasso", "15dd": "Raven Ridge",
    "15e7": "Barcelo", "163f": "Van Gogh", "1506": "Mendocino",
}  # fmt: skip
APU_LARGEST_CARVE_OUT_MIB = 1024
INTEL_INTEGRATED_SLOT = "0000:00:02.0"  # of Intel's graphics in the processor, on every board
# GiB, least and most that a card of this number comes with: mainline i915 publishes no total. The window on the memory
# (BAR 2) tells the two A770 apart when it is wide; it may be narrower than the memory, and is a power of two.
ARC_GIB = {"56a0": (8, 16), "56a1": (8, 8), "56a2": (8, 8), "56a5": (6, 6), "56a6": (4, 4)}
MIB_PER_GIB = 1024
IORESOURCE_MEM = 0x200
ASAHI = "asahi"


@dataclass(frozen=True)
class Memory:
    """Sizes in MiB: `own` belongs to the processor, `shared` is the machine's that it may use; of `own` so much is
    `used` now. 0: not known."""

    own: int
    shared: int
    integrated: bool
    used: int = 0


def _mib(files: Mapping[str, str], path: str) -> int:
    text = files.get(path, "").strip()
    return int(text) // MIB if text.isdigit() else 0


def amd(files: Mapping[str, str], slot: str, device: str) -> Memory:
    """Read amdgpu's totals. An APU computes in its carve-out and, mostly, in the machine's memory through the GTT."""
    own = _mib(files, f"{PCI}/{slot}/mem_info_vram_total")
    gtt = _mib(files, f"{PCI}/{slot}/mem_info_gtt_total")
    integrated = device in APU_DEVICES or 0 < own <= APU_LARGEST_CARVE_OUT_MIB < gtt
    used = _mib(files, f"{PCI}/{slot}/mem_info_vram_used")
    return Memory(own, gtt if integrated else 0, integrated, used)


def intel(files: Mapping[str, str], slot: str, device: str, total_mib: int) -> Memory:
    """Read what Intel's drivers publish, else what is known of the card."""
    below = f"{PCI}/{slot}/"
    if slot == INTEL_INTEGRATED_SLOT:
        return Memory(0, total_mib // 2, integrated=True)
    tiles = [p for p in files if p.startswith(below) and p.endswith("/physical_vram_size_bytes")]
    local = [p for p in files if p.startswith(below) and p.endswith("/lmem_total_bytes")]
    own = sum(_mib(files, p) for p in tiles) or sum(_mib(files, p) for p in local)
    if not own and device in ARC_GIB:
        least, most = (gib * MIB_PER_GIB for gib in ARC_GIB[device])
        own = max(least, min(most, window_mib(files.get(f"{below}resource", ""))))
    return Memory(own, 0, integrated=False)


def window_mib(resource: str) -> int:
    """Return the widest memory window in MiB: a line of `resource` is first address, last address and flags."""
    largest = 0
    for line in resource.splitlines():
        row = line.split()
        if len(row) == 3 and int(row[2], 16) & IORESOURCE_MEM:
            largest = max(largest, (int(row[1], 16) - int(row[0], 16) + 1) // MIB)
    return largest


def platform_gpus(files: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return card, driver and compatible name of graphics processors that are on no bus (Apple Silicon and such).

    Reads /sys/class/drm/cardN/device/uevent: `DRIVER=asahi`, `OF_COMPATIBLE_0=apple,agx-g13g`.
    """
    found: list[tuple[str, str, str]] = []
    for path in sorted(files):
        card = re.fullmatch(r"/sys/class/drm/(card\d+)/device/uevent", path)
        rows = dict(line.partition("=")[::2] for line in files[path].splitlines()) if card else {}
        if card and rows.get("DRIVER") == ASAHI:
            found.append((card.group(1), ASAHI, rows.get("OF_COMPATIBLE_0", "")))
    return found


def machine_model(files: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return a device tree's model and compatible names, most specific first (NUL-terminated strings)."""
    model = files.get("/proc/device-tree/model", "").strip("\0\n ")
    return model, tuple(n for n in files.get("/proc/device-tree/compatible", "").split("\0") if n.strip())


def apple_chip(compatible: Sequence[str]) -> str:
    """Return the chip among a machine's compatible names: `apple,t8103` is the M1."""
    return next((name for name in compatible if re.fullmatch(r"apple,t\d+", name)), "")
