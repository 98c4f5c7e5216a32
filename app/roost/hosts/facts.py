"""What a machine is. Pure, standard library only: `roost.hosts.collect` gathers texts, `facts_from` reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_interface
from typing import Any

from roost.hosts import cpu, disks, freebsd, gpu_nvidia, gpus, parse

PACKAGE_MANAGERS = ("apt-get", "dnf", "apk", "pacman", "zypper", "pkg")
ARCH_NAMES = {"arm64": "aarch64", "amd64": "x86_64"}
LINK_LOCAL_V6 = "fe80:"


@dataclass(frozen=True)
class Disk:
    """Free space for one path. `device` is the same number for paths on one file system; `kind` as in `disks`."""

    path: str
    device: int
    total_mib: int
    free_mib: int
    writable: bool
    kind: str = "unknown"
    filesystem: str = ""
    number: str = ""  # of the block device, `259:1`


@dataclass(frozen=True)
class Listener:
    """A TCP socket that listens; `pid` is 0 and the names empty where only root could tell whose it is."""

    address: str
    port: int
    pid: int = 0
    process: str = ""
    command: str = ""
    uid: int = -1


@dataclass(frozen=True)
class Docker:
    """`version` is the running daemon's, or that of the program when no daemon answers; `ours`: we installed it."""

    present: bool = False
    running: bool = False
    version: str = ""
    ours: bool = False
    runtimes: tuple[str, ...] = ()  # of the running daemon


@dataclass(frozen=True)
class HostFacts:
    """One machine. Sizes in MiB, times in seconds since 1970."""

    hostname: str
    os_id: str
    os_like: tuple[str, ...]
    os_name: str
    os_version: str
    os_codename: str
    debian_generation: int | None
    arch: str
    kernel: str
    init: str  # systemd, sysvinit, openrc, none
    virtualisation: str  # none, or what it runs in
    is_root: bool
    cgroup_version: int  # 2, 1 (hybrid included), 0: none mounted
    cgroup_controllers: tuple[str, ...]
    cgroup_writable: bool
    cpu_model: str
    cpu_cores: int
    cpu_flags: tuple[str, ...]
    cpu: cpu.Cpu
    memory_total_mib: int  # of the machine, or of our cgroup's limit if that is less
    memory_available_mib: int
    memory_limit_mib: int | None
    disks: tuple[Disk, ...]
    gpus: tuple[gpus.Gpu, ...]
    nvidia: gpu_nvidia.Nvidia
    rocm: bool  # the kernel's compute interface of AMD cards is there
    level_zero: bool  # the libraries by which Intel's cards compute are there
    addresses: dict[str, tuple[str, ...]]  # by interface, with prefix
    default_address: str  # of the default route's interface, without prefix; empty if there is none
    listeners: tuple[Listener, ...]
    docker: Docker
    package_managers: tuple[str, ...]
    clock: float
    clock_floor: float  # newest time at which this machine's software is known to have been written

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def own_addresses(self) -> set[str]:
        """Return all addresses of this machine without their prefixes."""
        return {str(ip_interface(a).ip) for found in self.addresses.values() for a in found}


@dataclass(frozen=True)
class RawFacts:
    """What was collected, unparsed. `files` by path, `asked` by program name; a missing one is an empty text."""

    files: Mapping[str, str]
    asked: Mapping[str, str] = field(default_factory=dict)
    uname: tuple[str, str, str] = ("", "", "")  # host name, kernel release, machine
    present: tuple[str, ...] = ()  # of the paths and programs looked for
    uid: int = 0
    cores_allowed: int = 0
    cgroup_writable: bool = False
    memory_limits: tuple[str, ...] = ()  # `LIMIT USED` in bytes of our cgroup and those above it
    cpu_limits: tuple[str, ...] = ()  # `QUOTA PERIOD` of the same
    netlink: bytes = b""
    interfaces: Mapping[int, str] = field(default_factory=dict)
    pci: tuple[gpus.PciDevice, ...] = ()
    nodes: tuple[gpus.DeviceNode, ...] = ()
    block: tuple[disks.BlockDevice, ...] = ()
    socket_owners: Mapping[str, tuple[int, str, str]] = field(default_factory=dict)  # inode -> pid, name, command
    disks: tuple[Disk, ...] = ()
    docker_ours: bool = False
    clock: float = 0.0
    clock_floor: float = 0.0


def facts_from(raw: RawFacts) -> HostFacts:
    """Turn collected texts into facts: pure."""

    def text(path: str) -> str:
        return raw.files.get(path, "")

    release = parse.os_release(text("/etc/os-release"))
    machine = _machine(raw)
    total, available, limit = _memory(raw, machine)
    version, controllers = _cgroups(text)
    found = parse.addresses(raw.netlink, raw.interfaces) or freebsd.addresses(raw.asked.get("ifconfig", ""))
    by_interface = {name: tuple(a for n, a in found if n == name) for name, _ in found}
    return HostFacts(
        hostname=raw.uname[0],
        os_id=release.get("ID", ""),
        os_like=tuple(release.get("ID_LIKE", "").split()),
        os_name=release.get("PRETTY_NAME", release.get("NAME", "an unknown system")),
        os_version=release.get("VERSION_ID", ""),
        os_codename=release.get("VERSION_CODENAME", ""),
        debian_generation=parse.debian_generation(text("/etc/debian_version")),
        arch=ARCH_NAMES.get(raw.uname[2], raw.uname[2]),
        kernel=raw.uname[1],
        init=parse.init_system(
            text("/proc/1/comm"),
            systemd_booted="/run/systemd/system" in raw.present,
            openrc_booted="/run/openrc" in raw.present,
        ),
        virtualisation=_virtualisation(raw),
        is_root=raw.uid == 0,
        cgroup_version=version,
        cgroup_controllers=controllers,
        cgroup_writable=raw.cgroup_writable,
        cpu_model=machine.model,
        cpu_cores=cpu.usable_cores(machine.cores, raw.cores_allowed, machine.cpu.quota),
        cpu_flags=machine.flags,
        cpu=machine.cpu,
        memory_total_mib=total,
        memory_available_mib=available,
        memory_limit_mib=limit,
        disks=_disks(raw),
        gpus=_gpus(raw, total),
        nvidia=gpu_nvidia.software(raw.asked, text("/proc/driver/nvidia/version")),
        rocm="/dev/kfd" in raw.present,
        level_zero={"level-zero", "level-zero-gpu"} <= set(raw.present),
        addresses=by_interface,
        default_address=_default_address(raw, by_interface),
        listeners=_listeners(text, raw.socket_owners) or _bsd_listeners(raw.asked.get("sockstat", "")),
        docker=_docker(raw),
        package_managers=tuple(name for name in PACKAGE_MANAGERS if name in raw.present),
        clock=raw.clock,
        clock_floor=raw.clock_floor,
    )


def _machine(raw: RawFacts) -> freebsd.Machine:
    """Return processor and memory, from FreeBSD's sysctl if it was asked, else from Linux's files."""
    values = freebsd.sysctl(raw.asked.get("sysctl", ""))
    if values:
        return freebsd.describe(values, raw.files.get("/var/run/dmesg.boot", ""))
    cpuinfo = raw.files.get("/proc/cpuinfo", "")
    model, cores, flags = parse.cpu_info(cpuinfo)
    if not re.search(r"^(model name|Model)\s*:", cpuinfo, re.MULTILINE):
        board = raw.files.get("/proc/device-tree/model", "").strip("\0\n ")
        model = cpu.arm_model(cpuinfo) or board or model
    total, available = parse.memory_mib(raw.files.get("/proc/meminfo", ""))
    return freebsd.Machine(model, cores, flags, cpu.describe(raw.files, raw.cpu_limits), total, available)


def _gpus(raw: RawFacts, total_mib: int) -> tuple[gpus.Gpu, ...]:
    seen = freebsd.pci_devices(raw.asked.get("pciconf", ""))
    pci = raw.pci or tuple(gpus.PciDevice(d.slot, d.kind, d.vendor, d.device, d.driver) for d in seen)
    found = gpus.find(pci, raw.asked.get("lspci", ""), raw.asked.get("nvidia-smi", ""))
    names = {d.slot: d.name for d in seen if d.name}
    unnamed = {d.slot: f"device {d.device}" for d in pci}
    named = [replace(g, name=names.get(g.slot, g.name)) if g.name == unnamed.get(g.slot) else g for g in found]
    measured = gpus.measure(named, raw.files, raw.asked, total_mib)
    return tuple(gpus.with_nodes(gpu, raw.nodes) for gpu in measured)


def _disks(raw: RawFacts) -> tuple[Disk, ...]:
    table = disks.mounts(raw.files.get("/proc/mounts", "") or raw.asked.get("mount", ""))
    devices = {device.name: device for device in raw.block}
    found: list[Disk] = []
    for disk in raw.disks:
        mount = disks.mount_of(disk.path, table)
        kind = disks.kind_of(mount, disk.number, devices)
        found.append(replace(disk, kind=kind, filesystem=mount.filesystem if mount else ""))
    return tuple(found)


def _memory(raw: RawFacts, machine: freebsd.Machine) -> tuple[int, int, int | None]:
    """Return total, available and the tightest cgroup's limit in MiB; a limit counts where it is the smaller one."""
    total, available = machine.total_mib, machine.available_mib
    limit: int | None = None
    for row in raw.memory_limits:
        words = row.split()
        most = parse.byte_limit(words[0])
        if most is None or most // parse.MIB >= machine.total_mib:
            continue
        limit = min(most // parse.MIB, total)
        total = limit
        available = min(available, max(0, most - int(words[1])) // parse.MIB)
    return total, available, limit


def _cgroups(text: Callable[[str], str]) -> tuple[int, tuple[str, ...]]:
    """Return the version in use for controllers, and the controllers that are there to use."""
    unified = tuple(sorted(text("/sys/fs/cgroup/cgroup.controllers").split()))
    if unified:
        return 2, unified
    mounted = {
        option for _, kind, options in parse.mounts(text("/proc/mounts")) if kind == "cgroup" for option in options
    }
    controllers = tuple(c for c in parse.enabled_controllers(text("/proc/cgroups")) if c in mounted)
    return (1, controllers) if controllers else (0, ())


def _virtualisation(raw: RawFacts) -> str:
    values = freebsd.sysctl(raw.asked.get("sysctl", ""))
    if values:
        return freebsd.virtualisation(values)
    board = (raw.files.get(f"/sys/class/dmi/id/{name}", "") for name in ("sys_vendor", "product_name"))
    cpuinfo, version = raw.files.get("/proc/cpuinfo", ""), raw.files.get("/proc/version", "")
    return parse.virtualisation(cpuinfo, " ".join(board), _container(raw), version)


def _container(raw: RawFacts) -> str:
    """Return the name of the container engine around us, or an empty string."""
    named = raw.files.get("/run/systemd/container", "").strip()
    if named:
        return named
    if "/run/.containerenv" in raw.present:
        return "podman"
    return "docker" if "/.dockerenv" in raw.present else ""


def _default_address(raw: RawFacts, by_interface: Mapping[str, tuple[str, ...]]) -> str:
    """Return the first address of the default route's interface: IPv4 if it has one, else a routable IPv6."""
    bsd = freebsd.default_interface(raw.asked.get("route", ""))
    via_v4 = parse.default_interface(raw.files.get("/proc/net/route", "")) or bsd
    via_v6 = parse.default_interface_v6(raw.files.get("/proc/net/ipv6_route", "")) or bsd
    v4 = [a for a in by_interface.get(via_v4, ()) if ":" not in a]
    v6 = [a for a in by_interface.get(via_v6, ()) if ":" in a and not a.startswith(LINK_LOCAL_V6)]
    return str(ip_interface((v4 + v6)[0]).ip) if v4 or v6 else ""


def _listeners(text: Callable[[str], str], owners: Mapping[str, tuple[int, str, str]]) -> tuple[Listener, ...]:
    found = [s for path in ("/proc/net/tcp", "/proc/net/tcp6") for s in parse.listening(text(path))]
    return tuple(
        Listener(address, port, *owners.get(inode, (0, "", "")), uid)
        for address, port, inode, uid in sorted(found, key=lambda s: (s[1], s[0]))
    )


def _bsd_listeners(text: str) -> tuple[Listener, ...]:
    found = sorted(set(freebsd.listening(text)), key=lambda s: (s[1], s[0]))
    return tuple(Listener(address, port, pid, program) for address, port, pid, program in found)


def _docker(raw: RawFacts) -> Docker:
    running = parse.version_number(raw.asked.get("docker", ""))
    program = parse.version_number(raw.asked.get("dockerd", ""))
    present = bool(running or program) or "docker" in raw.present or "dockerd" in raw.present
    return Docker(
        present=present,
        running=bool(running),
        version=running or program,
        ours=raw.docker_ours,
        runtimes=tuple(raw.asked.get("docker runtimes", "").split()),
    )
