"""Reading what Linux says of itself: pure functions from text to values. Standard library only, Python 3.9+."""

from __future__ import annotations

import ipaddress
import re
import shlex
import struct
from collections.abc import Mapping

MIB = 1 << 20
KIB_PER_MIB = 1024
TCP_LISTEN = "0A"
ROUTE_UP = 0x1
UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a huge number
AF_INET, AF_INET6 = 2, 10
NLMSG_DONE, RTM_NEWADDR = 3, 20
IFA_ADDRESS, IFA_LOCAL = 1, 2
DEBIAN_BY_CODENAME = {"buster": 10, "bullseye": 11, "bookworm": 12, "trixie": 13, "forky": 14, "sid": 14}


def os_release(text: str) -> dict[str, str]:
    """Read /etc/os-release: shell assignments, quoted or not."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith("#"):
            continue
        try:
            found[key] = "".join(shlex.split(value))
        except ValueError:
            found[key] = value.strip("\"'")
    return found


def debian_generation(text: str) -> int | None:
    """Return Debian's major version from /etc/debian_version: `12.11`, or `trixie/sid` in derivatives.

    `X/sid` is what becomes X, so it has at least what the release before X had, which is what is returned.
    """
    value = text.strip()
    number = re.match(r"\d+", value)
    if number:
        return int(number.group())
    name, slash, _ = value.partition("/")
    generation = DEBIAN_BY_CODENAME.get(name)
    return generation - 1 if generation and slash else generation


def cpu_info(text: str) -> tuple[str, int, tuple[str, ...]]:
    """Return model, number of logical cores and sorted flags from /proc/cpuinfo of x86 or ARM."""
    model, flags, cores = "", "", 0
    implementer = ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor":
            cores += 1
        elif key in ("model name", "Model") and not model:
            model = value
        elif key in ("flags", "Features") and not flags:
            flags = value
        elif key == "CPU implementer" and not implementer:
            implementer = value
    if not model and implementer:
        model = f"ARM implementer {implementer}"
    return model, cores, tuple(sorted(flags.split()))


def memory_mib(text: str) -> tuple[int, int]:
    """Return total and available MiB from /proc/meminfo."""
    found = {key: int(kib) for key, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    available = found.get("MemAvailable", found.get("MemFree", 0))
    return found.get("MemTotal", 0) // KIB_PER_MIB, available // KIB_PER_MIB


def byte_limit(text: str) -> int | None:
    """Return a cgroup's memory limit in bytes; None for `max`, the huge number of version 1, or nothing at all."""
    value = text.strip()
    if not value.isdigit() or int(value) >= UNLIMITED_BYTES:
        return None
    return int(value)


def cgroup_paths(text: str) -> dict[str, str]:
    """Return the path in each hierarchy from /proc/self/cgroup; the key of the unified one is an empty string."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            paths.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return paths


def enabled_controllers(text: str) -> tuple[str, ...]:
    """Return the enabled controllers of /proc/cgroups."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(sorted(row[0] for row in rows if len(row) == 4 and row[3] == "1"))


def mounts(text: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return mount point, type and options of each line of /proc/mounts."""
    rows = [line.split() for line in text.splitlines()]
    return [(row[1], row[2], tuple(row[3].split(","))) for row in rows if len(row) >= 4]


def init_system(comm: str, *, systemd_booted: bool, openrc_booted: bool) -> str:
    """Name what PID 1 is: systemd, openrc, sysvinit, or none (a container's program, say)."""
    name = comm.strip()
    if name == "systemd" and systemd_booted:
        return "systemd"
    if openrc_booted and name in ("init", "openrc-init"):
        return "openrc"
    return "sysvinit" if name == "init" and not systemd_booted else "none"


def default_interface(text: str) -> str:
    """Return the interface of the default route with the lowest metric in /proc/net/route, or an empty string."""
    found: list[tuple[int, str]] = []
    for line in text.splitlines()[1:]:
        row = line.split()
        if len(row) >= 8 and row[1] == row[7] == "00000000" and int(row[3], 16) & ROUTE_UP:
            found.append((int(row[6]), row[0]))
    return min(found)[1] if found else ""


def default_interface_v6(text: str) -> str:
    """The same from /proc/net/ipv6_route."""
    found: list[tuple[int, str]] = []
    for line in text.splitlines():
        row = line.split()
        if len(row) >= 10 and set(row[0]) == {"0"} and row[1] == "00" and row[9] != "lo":
            found.append((int(row[5], 16), row[9]))
    return min(found)[1] if found else ""


def addresses(dump: bytes, interfaces: Mapping[int, str]) -> list[tuple[str, str]]:
    """Return interface and address with prefix (`eth0`, `192.0.2.7/24`) from the kernel's answer to RTM_GETADDR.

    Layout: rtnetlink(7); each message holds an ifaddrmsg and attributes, all aligned to 4 bytes.
    """
    found: list[tuple[str, str]] = []
    at = 0
    while at + 16 <= len(dump):
        length, kind = struct.unpack_from("=IH", dump, at)
        if kind == NLMSG_DONE or length < 16:
            break
        if kind == RTM_NEWADDR:
            family, prefix, _flags, _scope, index = struct.unpack_from("=BBBBI", dump, at + 16)
            raw = _address_attribute(dump[at + 24 : at + length])
            if raw and family in (AF_INET, AF_INET6):
                found.append((interfaces.get(index, str(index)), f"{ipaddress.ip_address(raw)}/{prefix}"))
        at += (length + 3) & ~3
    return found


def _address_attribute(attributes: bytes) -> bytes:
    """Return the node's own address: IFA_LOCAL where there is one (the peer's is IFA_ADDRESS then)."""
    values: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if length < 4:
            break
        values[kind] = attributes[at + 4 : at + length]
        at += (length + 3) & ~3
    return values.get(IFA_LOCAL, values.get(IFA_ADDRESS, b""))


def listening(text: str) -> list[tuple[str, int, str, int]]:
    """Return address, port, socket inode and user number of every listening socket in /proc/net/tcp or tcp6."""
    found: list[tuple[str, int, str, int]] = []
    for line in text.splitlines()[1:]:
        row = line.split()
        if len(row) > 9 and row[3] == TCP_LISTEN:
            raw, _, port = row[1].partition(":")
            found.append((_kernel_address(raw), int(port, 16), row[9], int(row[7])))
    return found


def _kernel_address(raw: str) -> str:
    """Decode an address of /proc/net: 32-bit words in the machine's byte order (little-endian here)."""
    words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def virtualisation(cpuinfo: str, dmi: str, container: str, kernel: str) -> str:
    """Name the container or hypervisor this runs in, or `none`.

    `container` is systemd's or the container engine's own name for it, empty outside of containers; `dmi` the
    vendor and product of the board.
    """
    if container:
        return container
    if "microsoft" in kernel.lower():
        return "wsl"
    board = dmi.lower()
    for mark, name in (
        ("vmware", "vmware"), ("virtualbox", "virtualbox"), ("innotek", "virtualbox"), ("qemu", "qemu"),
        ("kvm", "kvm"), ("amazon ec2", "amazon"), ("google", "google"), ("microsoft corporation", "hyper-v"),
        ("xen", "xen"), ("firecracker", "firecracker"),
    ):  # fmt: skip
        if mark in board:
            return name
    return "vm" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) else "none"


def version_number(text: str) -> str:
    """Return the first dotted number in a program's `--version`, or an empty string."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found.group() if found else ""
