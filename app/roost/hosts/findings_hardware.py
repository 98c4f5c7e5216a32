"""What is wrong with the hardware, or keeps models slow on it. Pure, from facts and device files to findings."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost.hosts.facts import Disk, HostFacts
from roost.hosts.findings import Finding, NotChecked
from roost.hosts.gpu_nvidia import OLDEST_DRIVER
from roost.hosts.gpus import Gpu
from roost.hosts.parse import memory_mib

# systemd's names (`systemd-detect-virt --container`), and those of container engines' own marks.
CONTAINERS = {
    "docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "openvz", "rkt", "proot", "pouch", "wsl", "oci",
    "container-other",
}  # fmt: skip
LENT = "vfio-pci"
WITHOUT_COMPUTE = {"nouveau", "simpledrm", "ppt"}
DRIVERS = {
    "NVIDIA": "Install NVIDIA's driver (Debian: package nvidia-driver, non-free), then restart.",
    "AMD": "Install the card's firmware (Debian: firmware-amd-graphics) and a kernel with amdgpu, then restart.",
    "Intel": "Install a kernel with i915 or xe for this card (Debian: from backports), then restart.",
    "Apple": "Use a kernel with the asahi driver.",
}
MEMORY_DISK = "tmpfs"
# What it is, and the usual MB/s of reading one large file.
SLOW_DISKS = {"hdd": ("a rotating disk", 120), "mmc": ("a memory card", 60), "network": ("a network file system", 100)}
MODEL_MB = 8000  # an example
DEVICES = Path("/dev")
DEVICE_FILES = ("dri/renderD*", "kfd", "nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "dxg")


@dataclass(frozen=True)
class DeviceFile:
    """A file of /dev through which a program computes."""

    path: str
    mode: int
    gid: int


@dataclass(frozen=True)
class HardwareSeen:
    """What doctor looks at beside the facts. None: it was not looked at.

    `machine_memory_mib` is the whole machine's memory, whatever a cgroup allows; `models_dir` is where models lie.
    """

    device_files: tuple[DeviceFile, ...] | None = None
    machine_memory_mib: int | None = None
    models_dir: str = ""


def look_at_hardware(models_dir: str, dev: Path = DEVICES, meminfo: Path = Path("/proc/meminfo")) -> HardwareSeen:
    """Collect it: the only part here that looks at the machine."""
    files: tuple[DeviceFile, ...] | None = None
    if dev.is_dir():
        found = sorted({path for pattern in DEVICE_FILES for path in dev.glob(pattern)})
        infos = [(path, path.stat()) for path in found if path.exists()]
        files = tuple(DeviceFile(str(p), stat.S_IMODE(info.st_mode), info.st_gid) for p, info in infos)
    try:
        total = memory_mib(meminfo.read_text())[0] or None
    except OSError:
        total = None
    return HardwareSeen(files, total, models_dir)


def hardware_findings(facts: HostFacts, seen: HardwareSeen) -> list[Finding]:
    """Return what is wrong or slow."""
    return [
        *_processor(facts),
        *_memory(facts, seen),
        *_models_disk(facts, seen),
        *graphics_findings(facts),
        *_device_files(facts, seen),
    ]


def hardware_not_checked(facts: HostFacts, seen: HardwareSeen) -> list[NotChecked]:
    """Return what could not be looked at."""
    found = []
    if seen.device_files is None and facts.gpus:
        found.append(NotChecked("device files of graphics processors", "there is no /dev here"))
    if seen.machine_memory_mib is None:
        found.append(NotChecked("whether a cgroup takes memory from us", "/proc/meminfo cannot be read"))
    disk = _disk_of(facts, seen.models_dir)
    if disk is None or disk.kind in {"unknown", "virtual"}:
        why = "a hypervisor hides it" if disk is not None and disk.kind == "virtual" else "the system does not tell"
        found.append(NotChecked(f"how fast the disk below {seen.models_dir or 'the models'} is", why))
    if not facts.cpu_flags:
        found.append(NotChecked("what the processor can do", "the system does not list its abilities"))
    return found


def _processor(facts: HostFacts) -> Iterator[Finding]:
    if facts.arch != "x86_64" or not facts.cpu_flags or "avx2" in facts.cpu_flags:
        return
    hidden = facts.virtualisation not in {"none", *CONTAINERS}
    yield Finding(
        "cpu:avx2", "warning" if hidden else "info", f"The processor ({facts.cpu_model}) has no AVX2.",
        "Models compute several times slower without it.",
        "Let the hypervisor pass the processor's abilities on (QEMU and Proxmox: CPU type `host`)." if hidden
        else "Nothing can be done on this processor; small models are still usable.",
    )  # fmt: skip


def _memory(facts: HostFacts, seen: HardwareSeen) -> Iterator[Finding]:
    limit, machine = facts.memory_limit_mib, seen.machine_memory_mib
    if limit is not None and machine is not None and limit < machine:
        yield Finding(
            "memory:cgroup", "info", f"A cgroup allows {limit} MiB of the machine's {machine} MiB of memory.",
            "Models are planned with what it allows; a program that takes more is killed.",
            "Nothing to do if that is meant; else raise the limit of the container or unit (memory.max).",
        )  # fmt: skip


def _disk_of(facts: HostFacts, path: str) -> Disk | None:
    return next((disk for disk in facts.disks if disk.path == path), None)


def _models_disk(facts: HostFacts, seen: HardwareSeen) -> Iterator[Finding]:
    disk = _disk_of(facts, seen.models_dir)
    if disk is None:
        return
    if disk.kind == MEMORY_DISK:
        yield Finding(
            "models-disk", "warning", f"{disk.path} lies in memory ({disk.filesystem}).",
            "Models take memory twice there, and are fetched again after each start of the machine.",
            "Set roost_models_dir to a folder on a disk.",
        )  # fmt: skip
    elif disk.kind in SLOW_DISKS:
        what, rate = SLOW_DISKS[disk.kind]
        yield Finding(
            "models-disk", "info", f"{disk.path} lies on {what}.",
            f"A model of {MODEL_MB / 1000:.0f} GB takes {MODEL_MB / rate / 60:.1f} minutes to load at its usual "
            f"{rate} MB/s.",
            "Nothing to do if that is fine; else set roost_models_dir to a folder on a faster disk.",
        )  # fmt: skip
    if not disk.writable:
        yield Finding(
            "models-disk:read-only", "error", f"The disk of {disk.path} is mounted read-only.",
            "No model can be fetched, and the system may have found the disk broken.",
            "Look at `dmesg`, then mount it writable.",
        )  # fmt: skip


def graphics_findings(facts: HostFacts) -> list[Finding]:
    """Return what is wrong with graphics processors and their drivers, as far as facts alone tell."""
    return [*_nvidia(facts), *(found for gpu in facts.gpus for found in _driver(gpu))]


def _nvidia(facts: HostFacts) -> Iterator[Finding]:
    nvidia = facts.nvidia
    cards = [gpu for gpu in facts.gpus if gpu.vendor == "NVIDIA"]
    if nvidia.problem:
        yield Finding(
            "nvidia", "warning", f"NVIDIA's driver does not work: {nvidia.problem}",
            "Models compute on the processor instead, many times slower.",
            "Restart the machine; if it comes back, install the driver again.",
        )  # fmt: skip
    elif nvidia.driver and not cards:
        yield Finding(
            "nvidia", "warning", f"NVIDIA's driver {nvidia.driver} is here, but no card that it could use.",
            "Models compute on the processor.",
            "See that the card sits well and has power, or is passed to this virtual machine (`lspci`).",
        )  # fmt: skip
    elif any(g.driver == "nvidia" and not (g.memory_mib or g.mig or g.integrated) for g in cards):
        yield Finding(
            "nvidia", "warning", "NVIDIA's driver is loaded, but nvidia-smi is not here or says nothing of the card.",
            "How much memory the card has is not known, so nothing is planned for it.",
            "Install nvidia-smi (Debian: package nvidia-smi) in the driver's version.",
        )  # fmt: skip
    if nvidia.driver and not nvidia.cuda_majors:
        oldest = min(OLDEST_DRIVER)
        yield Finding(
            "nvidia:cuda", "warning",
            f"NVIDIA's driver {nvidia.driver} is too old for CUDA {oldest}, the oldest that engines are made for.",
            "An engine made for CUDA does not start on it, or computes on the processor.",
            f"Install a driver of version {'.'.join(map(str, OLDEST_DRIVER[oldest]))} or newer, then restart.",
        )  # fmt: skip


def _driver(gpu: Gpu) -> Iterator[Finding]:
    where = f"{gpu.vendor} {gpu.name} ({gpu.slot})"
    if gpu.driver == LENT:
        yield Finding(
            f"gpu-driver:{gpu.slot}", "info", f"{where} is lent to virtual machines.",
            "Nothing on this machine can compute on it.", "Nothing to do if that is meant; else unbind it of vfio-pci.",
        )  # fmt: skip
    elif not gpu.driver or gpu.driver in WITHOUT_COMPUTE:
        with_what = f"has the driver {gpu.driver}, which cannot compute" if gpu.driver else "has no driver"
        yield Finding(
            f"gpu-driver:{gpu.slot}", "warning", f"{where} {with_what}.",
            "Models could run on it many times faster than on the processor.", DRIVERS[gpu.vendor],
        )  # fmt: skip
    elif gpu.mig and not gpu.slices_mib:
        yield Finding(
            f"gpu-mig:{gpu.slot}", "warning", f"{where} has MIG switched on, but is divided into no slices.",
            "No program sees anything of it.", "Make slices (`nvidia-smi mig -cgi`), or switch MIG off.",
        )  # fmt: skip


def _device_files(facts: HostFacts, seen: HardwareSeen) -> Iterator[Finding]:
    if seen.device_files is None:
        return
    inside = facts.virtualisation in CONTAINERS
    for vendor, what, name, option in (
        ("NVIDIA", "/dev/nvidia0", r"nvidia\d+", "--gpus all"),
        ("AMD", "/dev/dri/renderD128", r"renderD\d+|kfd", "--device /dev/dri --device /dev/kfd"),
        ("Intel", "/dev/dri/renderD128", r"renderD\d+", "--device /dev/dri"),
    ):
        cards = [g for g in facts.gpus if g.vendor == vendor and g.driver and g.driver not in {LENT, *WITHOUT_COMPUTE}]
        if not cards:
            continue
        files = [f for f in seen.device_files if re.fullmatch(name, Path(f.path).name)]
        if not files and not (vendor == "NVIDIA" and facts.virtualisation == "wsl"):
            yield Finding(
                f"device-files:{vendor}", "warning",
                f"{cards[0].name} is here, but its device files ({what}) are not.",
                "No program can compute on it." + (" This is a container that was not given them." if inside else ""),
                f"Start the container with {option}." if inside
                else "Look at `dmesg` for the driver's words; load its module, or restart.",
            )  # fmt: skip
        else:
            yield from _access(vendor, files)


def _access(vendor: str, files: Sequence[DeviceFile]) -> Iterator[Finding]:
    """Model servers are not root: they open a device by its group, never by root's, or because everybody may."""
    for file in files:
        everybody = file.mode & 0o006 == 0o006
        by_group = file.mode & 0o060 == 0o060 and file.gid != 0
        if not everybody and not by_group:
            yield Finding(
                f"device-access:{file.path}", "warning",
                f"{file.path} has mode {file.mode:04o} and group {file.gid}: only root may compute through it.",
                f"Model servers do not run as root, so they cannot use {vendor}'s card.",
                f"chgrp render {file.path}; chmod 660 {file.path}; and make udev do so (package systemd's or the "
                "driver's rules).",
            )  # fmt: skip
