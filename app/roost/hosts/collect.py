"""Collect what `roost.hosts.facts` reads: files, a few programs, one kernel query. Changes nothing on the machine.

Standard library only. Whatever cannot be read is left out: a fact that is not known is no error here.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from roost.hosts import freebsd, parse
from roost.hosts.disks import BlockDevice
from roost.hosts.facts import PACKAGE_MANAGERS, Disk, HostFacts, RawFacts, facts_from
from roost.hosts.gpus import DeviceNode, PciDevice
from roost.ops.dpkg import on_disk
from roost.ops.errors import RoostError
from roost.ops.run import run

ASK_TIMEOUT_S = 30.0
RTM_GETADDR, NLM_F_REQUEST_DUMP = 22, 0x301
NETLINK_ROUTE = 0
NETLINK_TIMEOUT_S = 2.0
MIB = 1 << 20
SYS = Path("/sys")
DEV = Path("/dev")
FILES = (
    "/etc/os-release", "/etc/debian_version", "/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/cgroups",
    "/proc/mounts", "/proc/1/comm", "/proc/net/route", "/proc/net/ipv6_route", "/proc/net/tcp", "/proc/net/tcp6",
    "/sys/fs/cgroup/cgroup.controllers", "/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name",
    "/proc/version", "/run/systemd/container", "/proc/driver/nvidia/version", "/proc/device-tree/model",
    "/proc/device-tree/compatible", "/sys/devices/system/node/online", "/var/run/dmesg.boot",
    "/sys/devices/system/cpu/cpu0/cache/index2/size", "/sys/devices/system/cpu/cpu0/cache/index3/size",
)  # fmt: skip
# Below a graphics processor's folder in sysfs, and of those that are on no bus.
GPU_FILES = (
    "resource", "mem_info_vram_total", "mem_info_vram_used", "mem_info_gtt_total", "tile*/physical_vram_size_bytes",
    "tile*/memory/physical_vram_size_bytes", "drm/card*/lmem_total_bytes",
)  # fmt: skip
PLATFORM_GPUS = "class/drm/card*/device/uevent"
RENDER_NODES = "bus/pci/devices/*/drm/renderD*"
KFD = "kfd"  # of all AMD cards together
TOPOLOGY = "devices/system/cpu/cpu[0-9]*/topology/{}_siblings_list"
MARKS = ("/run/systemd/system", "/run/openrc", "/run/.containerenv", "/.dockerenv", "/dev/kfd")
# Level Zero: its loader, and Intel's driver below it (packages libze1 and libze-intel-gpu1, or Intel's own).
LIBRARY_FOLDERS = ("usr/lib/*", "usr/lib64", "usr/lib", "usr/local/lib", "opt/intel/*/lib")
LIBRARIES = {"level-zero": "libze_loader.so.1", "level-zero-gpu": "libze_intel_gpu.so.1"}
DOCKER_PACKAGES = ("docker.io", "docker-ce", "moby-engine")
PROGRAMS = (*PACKAGE_MANAGERS, "docker", "dockerd", "nvidia-smi", "lspci")
BSD_PROGRAMS = ("sysctl", "pciconf", "ifconfig", "mount", "route", "sockstat")
QUESTIONS = {
    "docker": ["docker", "version", "--format", "{{.Server.Version}}"],
    "docker runtimes": ["docker", "info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"],
    "dockerd": ["dockerd", "--version"],
    "lspci": ["lspci", "-mm"],
    "nvidia-smi": ["nvidia-smi", "--query-gpu=pci.bus_id,name,memory.total", "--format=csv,noheader,nounits"],
    "sysctl": ["sysctl", "-i", *freebsd.SYSCTLS],
    "pciconf": ["pciconf", "-lv"],
    "ifconfig": ["ifconfig", "-a"],
    "mount": ["mount", "-p"],
    "route": ["route", "-n", "get", "default"],
    "sockstat": ["sockstat", "-46l"],
}
NVIDIA_QUESTIONS = {
    "nvidia-smi head": ["nvidia-smi"],
    "nvidia-smi details": [
        "nvidia-smi",
        "--query-gpu=pci.bus_id,compute_cap,mig.mode.current",
        "--format=csv,noheader",
    ],
    "nvidia-smi used": [
        "nvidia-smi",
        "--query-gpu=pci.bus_id,memory.total,memory.free",
        "--format=csv,noheader,nounits",
    ],
    "nvidia-smi list": ["nvidia-smi", "-L"],
}
# Written whenever software is installed: the clock cannot honestly be before it.
CLOCK_WITNESSES = ("/var/lib/dpkg/status", "/etc/os-release", "/etc/machine-id")


def collect(paths: Sequence[str | Path] = (), *, manifest: Path | None = None) -> HostFacts:
    """Look at this machine. `paths` are places whose disk matters; `manifest` tells what of it Roost installed."""
    return facts_from(collect_raw(paths, manifest=manifest))


def collect_raw(paths: Sequence[str | Path] = (), *, manifest: Path | None = None) -> RawFacts:
    """Collect the texts that `facts_from` reads."""
    system = platform.uname()
    programs = PROGRAMS + BSD_PROGRAMS if system.system == "FreeBSD" else PROGRAMS
    found = [p for p in programs if shutil.which(p)]
    asked = {name: _ask(words) for name, words in QUESTIONS.items() if words[0] in found}
    memberships = _read("/proc/self/cgroup")
    return RawFacts(
        files={path: _read(path) for path in FILES} | sysfs_texts(topology="core id" not in _read("/proc/cpuinfo")),
        asked=asked | (_ask_nvidia(asked["nvidia-smi"]) if "nvidia-smi" in found else {}),
        uname=(system.node, system.release, system.machine),
        present=(*found, *(m for m in MARKS if Path(m).exists()), *libraries()),
        uid=os.geteuid(),
        cores_allowed=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        cgroup_writable=any(os.access(p, os.W_OK) for p in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup")),
        memory_limits=tuple(memory_limits(memberships)),
        cpu_limits=tuple(cpu_limits(memberships)),
        netlink=_address_dump() if hasattr(socket, "AF_NETLINK") else b"",
        interfaces=dict(socket.if_nameindex()),
        pci=tuple(_pci_devices()),
        nodes=tuple(device_nodes()),
        block=tuple(block_devices()),
        socket_owners=_socket_owners(),
        disks=tuple(_disk(str(p)) for p in dict.fromkeys(map(str, paths))),
        docker_ours=_owned_packages_include_docker(manifest),
        clock=time.time(),
        clock_floor=max((Path(p).stat().st_mtime for p in CLOCK_WITNESSES if Path(p).exists()), default=0.0),
    )


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _ask(argv: list[str]) -> str:
    try:
        return run(argv, timeout_s=ASK_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"})
    except RoostError:
        return ""


def _ask_nvidia(cards: str) -> dict[str, str]:
    """Ask the rest of nvidia-smi; where it told no cards, its complaint."""
    if cards.strip():
        return {name: _ask(argv) for name, argv in NVIDIA_QUESTIONS.items()}
    try:
        run(["nvidia-smi"], timeout_s=ASK_TIMEOUT_S)
    except RoostError as error:
        return {"nvidia-smi problem": error.message}
    return {}


def sysfs_texts(sys: Path = SYS, *, topology: bool) -> dict[str, str]:
    """Read what graphics drivers say of memory, and with `topology` which processors belong together."""
    folders = [p for p in sys.glob("bus/pci/devices/*") if _read(p / "class").startswith(("0x03", "0x12"))]
    paths = [found for folder in folders for name in GPU_FILES for found in folder.glob(name)]
    paths += sys.glob(PLATFORM_GPUS)
    if topology:
        paths += [p for kind in ("thread", "core") for p in sys.glob(TOPOLOGY.format(kind))]
    return {str(SYS / p.relative_to(sys)): _read(p) for p in sorted(paths)}


def libraries(root: Path = Path("/")) -> list[str]:
    """Return the names of LIBRARIES that lie where the system's libraries do."""
    return [
        name
        for name, file in LIBRARIES.items()
        if any((folder / file).exists() for pattern in LIBRARY_FOLDERS for folder in root.glob(pattern))
    ]


def device_nodes(sys: Path = SYS, dev: Path = DEV) -> Iterator[DeviceNode]:
    """Yield the render nodes of graphics processors, each of which sysfs names below its card, and AMD's kfd."""
    for entry in sorted(sys.glob(RENDER_NODES)):
        node = dev / "dri" / entry.name
        if node.exists():
            yield DeviceNode(str(DEV / "dri" / entry.name), node.stat().st_gid, entry.parent.parent.name)
    if (dev / KFD).exists():
        yield DeviceNode(str(DEV / KFD), (dev / KFD).stat().st_gid)


def block_devices(sys: Path = SYS) -> Iterator[BlockDevice]:
    """Yield all block devices; a partition lies in its disk's folder."""
    for entry in sorted(sys.glob("class/block/*")):
        folder = entry.resolve()
        partition = (folder / "partition").exists()
        below = [folder.parent.name] if partition else [p.name for p in (folder / "slaves").glob("*")]
        rotational = _read(folder / "queue/rotational").strip()
        yield BlockDevice(
            entry.name, _read(folder / "dev").strip(), rotational == "1" if rotational else None, tuple(sorted(below))
        )


def cpu_limits(memberships: str, sys: Path = SYS) -> Iterator[str]:
    """Yield `QUOTA PERIOD` of our cgroup and those above it; inside a container only some are visible."""
    for level in _cgroups(memberships, "cpu", sys):
        old = f"{_read(level / 'cpu.cfs_quota_us').strip()} {_read(level / 'cpu.cfs_period_us').strip()}"
        limit = _read(level / "cpu.max").strip() or old.strip()
        if limit:
            yield limit


def memory_limits(memberships: str, sys: Path = SYS) -> Iterator[str]:
    """Yield `LIMIT USED` in bytes of our cgroup and those above it; inside a container only some are visible.

    What is used does not count caches of files that were not touched lately: the kernel gives them up when asked
    (cgroup-v2.rst, memory.stat). Version 1's hierarchical_memory_limit knows of cgroups above that cannot be seen.
    """
    for level in _cgroups(memberships, "memory", sys):
        used = _read(level / "memory.current").strip() or _read(level / "memory.usage_in_bytes").strip()
        stat = dict(row.split() for row in _read(level / "memory.stat").splitlines() if len(row.split()) == 2)
        idle = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
        taken = max(0, int(used) - int(idle)) if used.isdigit() and idle.isdigit() else 0
        limits = [_read(level / name).strip() for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        for limit in (*limits, stat.get("hierarchical_memory_limit", "")):
            if limit and limit != "max":
                yield f"{limit} {taken}"


def _cgroups(memberships: str, controller: str, sys: Path) -> Iterator[Path]:
    """Yield the folders from our cgroup up to the root, of version 2 and then of version 1."""
    paths = parse.cgroup_paths(memberships)
    for root, path in (
        (sys / "fs/cgroup", paths.get("", "/")),
        (sys / "fs/cgroup" / controller, paths.get(controller, "/")),
    ):
        folder = root / path.lstrip("/")
        for level in (folder, *folder.parents):
            if level == root.parent:
                break
            yield level


def _address_dump() -> bytes:
    """Ask the kernel for all addresses (netlink, RTM_GETADDR): needs no program and no privilege."""
    request = struct.pack("=IHHIIBxxx", 20, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0, 0)
    answer = b""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as link:
            link.settimeout(NETLINK_TIMEOUT_S)
            link.send(request)
            while True:
                block = link.recv(65536)
                answer += block
                if not block or _ends(block):
                    return answer
    except OSError:
        return answer


def _ends(block: bytes) -> bool:
    """Say whether the last message of a netlink block ends the dump."""
    at, kind = 0, 0
    while at + 16 <= len(block):
        length, kind = struct.unpack_from("=IH", block, at)
        at += max(16, (length + 3) & ~3)
    return kind == parse.NLMSG_DONE


def _pci_devices() -> Iterator[PciDevice]:
    root = SYS / "bus/pci/devices"
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        kind, vendor, device = (_read(folder / n).strip().removeprefix("0x") for n in ("class", "vendor", "device"))
        driver = folder / "driver"
        yield PciDevice(folder.name, kind, vendor, device, driver.resolve().name if driver.exists() else "")


def _socket_owners() -> Mapping[str, tuple[int, str, str]]:
    """Return socket inode -> pid, process name, command line; of other users' processes only root sees these."""
    owners: dict[str, tuple[int, str, str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or not ours to look into
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(handle.readlink())
                    if target.startswith("socket:["):
                        command = _read(process / "cmdline").replace("\0", " ").strip()
                        owners[target[8:-1]] = (int(process.name), _read(process / "comm").strip(), command)
    return owners


def _disk(path: str) -> Disk:
    """Look at the file system where `path` is or would be made."""
    there = Path(path).absolute()
    while not there.exists():
        there = there.parent
    info = os.statvfs(there)
    return Disk(
        path=path,
        device=there.stat().st_dev,
        total_mib=info.f_blocks * info.f_frsize // MIB,
        free_mib=info.f_bavail * info.f_frsize // MIB,
        writable=not info.f_flag & os.ST_RDONLY,
        number=f"{os.major(there.stat().st_dev)}:{os.minor(there.stat().st_dev)}",
    )


def _owned_packages_include_docker(manifest: Path | None) -> bool:
    """Say whether the ownership manifest (`kind<TAB>name` a line) names a package of Docker's daemon that is there.

    A package is recorded before it comes: if that failed, a Docker installed by hand is not ours.
    """
    if manifest is None:
        return False
    rows = [line.split("\t") for line in _read(manifest).splitlines()]
    named = [row[1] for row in rows if len(row) == 2 and row[0] == "package" and row[1] in DOCKER_PACKAGES]
    return bool(on_disk(named))
