"""Which graphics processors are here, from what sysfs, lspci and nvidia-smi say. Pure. Standard library only."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from roost.hosts import gpu_nvidia, gpu_sysfs
from roost.hosts.slots import SLOT, normal_slot

VENDORS = {"10de": "NVIDIA", "1002": "AMD", "8086": "Intel"}
DISPLAY_CLASS = "03"  # PCI base class of display controllers
ACCELERATOR_CLASS = "12"  # processing accelerators


@dataclass(frozen=True)
class PciDevice:
    """One line of sysfs: slot `0000:01:00.0`, class, vendor and device as hex digits, bound driver or empty."""

    slot: str
    kind: str
    vendor: str
    device: str
    driver: str = ""


@dataclass(frozen=True)
class DeviceNode:
    """A file of /dev that a program computes through, its group's number, and whose it is; empty: every card's."""

    path: str
    gid: int
    slot: str = ""


@dataclass(frozen=True)
class Gpu:
    """A graphics processor that could compute; `memory_mib` is 0 where only its driver would know.

    `shared_mib` of the machine's memory may be used by an integrated one. With `mig` on, programs see only
    `slices_mib`. `used_mib` of its own memory cannot be had now. Who has one of the groups `gids` may open its
    `nodes`; NVIDIA's own tools hand out theirs.
    """

    slot: str
    vendor: str
    name: str
    driver: str
    memory_mib: int = 0
    device: str = ""  # PCI device number in hex digits, or a device tree's compatible name
    integrated: bool = False
    shared_mib: int = 0
    compute_capability: str = ""
    mig: bool = False
    slices_mib: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()
    used_mib: int = 0


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
        found.append(Gpu(device.slot, VENDORS[device.vendor], name, device.driver, memory, device.device))
    # in a container the driver's tool may know cards that sysfs does not show
    found += [Gpu(slot, "NVIDIA", name, "nvidia", memory) for slot, (name, memory) in sorted(nvidia.items())]
    return tuple(found)


def with_nodes(gpu: Gpu, nodes: Sequence[DeviceNode]) -> Gpu:
    """Add the files of /dev through which a card computes: its render node, and for AMD's HIP `/dev/kfd`.

    The root group counts for nothing: whoever had it could open far more than a graphics processor.
    """
    own = [n for n in nodes if n.slot == gpu.slot or (not n.slot and gpu.vendor == "AMD" and gpu.driver == "amdgpu")]
    if gpu.vendor not in ("AMD", "Intel") or not any(n.slot for n in own):
        return gpu
    gids = sorted({n.gid for n in own} - {0})
    return replace(gpu, nodes=tuple(sorted(n.path for n in own)), gids=tuple(gids))


def measure(
    found: Sequence[Gpu], files: Mapping[str, str], asked: Mapping[str, str], total_mib: int
) -> tuple[Gpu, ...]:
    """Complete what was found with its memory and abilities; `total_mib` is the machine's memory."""
    details = gpu_nvidia.details(asked.get("nvidia-smi details", ""))
    used = gpu_nvidia.used(asked.get("nvidia-smi used", ""))
    slices = gpu_nvidia.slices(asked.get("nvidia-smi list", ""))
    shares = gpu_nvidia.sharing_memory(asked.get("nvidia-smi", ""))
    # nvidia-smi numbers its cards in the order of their PCI addresses
    numbers = {slot: i for i, slot in enumerate(sorted(nvidia_rows(asked.get("nvidia-smi", ""))))}
    measured: list[Gpu] = []
    for gpu in found:
        if gpu.vendor == "NVIDIA":
            capability, mig = details.get(gpu.slot, ("", False))
            unified = gpu.slot in shares and not mig  # a divided card may hide its memory from a container
            measured.append(
                replace(
                    gpu,
                    compute_capability=capability,
                    mig=mig,
                    slices_mib=slices.get(numbers.get(gpu.slot, -1), ()) if mig else (),
                    integrated=unified,
                    shared_mib=total_mib if unified else 0,
                    used_mib=used.get(gpu.slot, 0),
                )
            )
        else:
            read = (
                gpu_sysfs.amd(files, gpu.slot, gpu.device)
                if gpu.vendor == "AMD"
                else (gpu_sysfs.intel(files, gpu.slot, gpu.device, total_mib))
            )
            measured.append(
                replace(
                    gpu, memory_mib=read.own, shared_mib=read.shared, integrated=read.integrated, used_mib=read.used
                )
            )
    model, compatible = gpu_sysfs.machine_model(files)
    measured += [
        Gpu(card, "Apple", model or kind, driver, 0, gpu_sysfs.apple_chip(compatible) or kind,
            integrated=True, shared_mib=total_mib)
        for card, driver, kind in gpu_sysfs.platform_gpus(files)
    ]  # fmt: skip
    return tuple(measured)
