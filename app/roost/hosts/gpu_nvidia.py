"""What NVIDIA's tools say: driver, CUDA, compute capability, MIG slices. Pure. Standard library only, Python 3.9+."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass

from roost.hosts.slots import SLOT, normal_slot

MIB_PER_GB = 1024  # profiles name gigabytes, and mean about that many GiB
# Oldest driver of each major version of CUDA: CUDA Toolkit Release Notes, "CUDA Minor Version Compatibility".
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
NO_MEMORY = ("[N/A]", "[Not Supported]")
MISMATCH = "Driver/library version mismatch"


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's software here; empty where unknown. `cuda` is the newest that the driver serves. `problem`: why not."""

    driver: str
    cuda: str
    cuda_majors: tuple[int, ...]  # whose programs the driver runs
    problem: str


def software(asked: Mapping[str, str], kernel_module: str) -> Nvidia:
    """Read `nvidia-smi`'s head, its complaint if it failed, and /proc/driver/nvidia/version."""
    head = asked.get("nvidia-smi head", "")
    complaint = asked.get("nvidia-smi problem", "")
    driver = re.search(r"Driver Version: ([\d.]+)", head) or re.search(
        r"Kernel Module.*?\s(\d+\.[\d.]+)", kernel_module
    )
    cuda = re.search(r"CUDA (?:UMD )?Version\s*: ([\d.]+)", head)
    problem = ""
    if MISMATCH in complaint:
        problem = "The driver's library is of another version than its kernel module; restart the machine."
    elif complaint:
        problem = complaint.strip().splitlines()[-1]
    version = driver.group(1) if driver else ""
    majors = tuple(major for major in OLDEST_DRIVER if serves_cuda(version, major))
    return Nvidia(version, cuda.group(1) if cuda else "", majors, problem)


def serves_cuda(driver: str, major: int) -> bool | None:
    """Say whether a driver (`535.129.03`) runs programs of CUDA's major version; None where that is not known."""
    numbers = tuple(int(part) for part in driver.split(".") if part.isdigit())
    if not numbers or major not in OLDEST_DRIVER:
        return None
    return numbers >= OLDEST_DRIVER[major]


def sharing_memory(text: str) -> set[str]:
    """Return the slots of cards that have no memory of their own, as a GB10: their `memory.total` is not there at all.

    Other texts there are no such sign: `[Insufficient Permissions]` beside MIG, `[GPU is lost]`.
    """
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if len(row) == 3]
    return {normal_slot(row[0]) for row in rows if row[2] in NO_MEMORY and SLOT.search(row[0])}


def details(text: str) -> dict[str, tuple[str, bool]]:
    """Return slot -> compute capability and whether MIG is on.

    Reads `nvidia-smi --query-gpu=pci.bus_id,compute_cap,mig.mode.current --format=csv,noheader`; drivers before 495 do
    not know compute_cap and refuse the question, and cards without MIG answer `[N/A]`.
    """
    found: dict[str, tuple[str, bool]] = {}
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 3 and SLOT.search(row[0]):
            capability = row[1] if re.fullmatch(r"\d+\.\d+", row[1]) else ""
            found[normal_slot(row[0])] = (capability, row[2] == "Enabled")
    return found


def used(text: str) -> dict[str, int]:
    """Return slot -> MiB that cannot be had now: what somebody holds, and what driver and firmware keep for themselves.

    Reads `nvidia-smi --query-gpu=pci.bus_id,memory.total,memory.free --format=csv,noheader,nounits`; a card that hides
    it answers `[N/A]`. `memory.used` is not asked: an idle H100 of 81559 MiB says 0 there, and 480 under
    `memory.reserved` (driver 580), which drivers before 510 counted as used.
    """
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if len(row) == 3]
    return {
        normal_slot(slot): max(0, int(total) - int(free))
        for slot, total, free in rows
        if SLOT.search(slot) and total.isdigit() and free.isdigit()
    }


def slices(text: str) -> dict[int, tuple[int, ...]]:
    """Return the card's number -> MiB of each MIG slice, from `nvidia-smi -L` (NVIDIA MIG User Guide).

    A slice's profile names its memory: `1g.5gb`, `3g.40gb`, `1c.3g.20gb`.
    """
    found: dict[int, list[int]] = {}
    card = -1
    for line in text.splitlines():
        head = re.match(r"GPU (\d+):", line)
        piece = re.match(r"\s+MIG \S*?\.(\d+)gb\S*\s+Device", line)
        if head:
            card = int(head.group(1))
        elif piece and card >= 0:
            found.setdefault(card, []).append(int(piece.group(1)) * MIB_PER_GB)
    return {number: tuple(sizes) for number, sizes in found.items()}
