"""Reading what FreeBSD says of itself: sysctl, pciconf, ifconfig, route, sockstat, dmesg.boot. Pure.

Standard library only, Python 3.9+. Sources: sysctl(8), pciconf(8), ifconfig(8), route(8), sockstat(1), and
sys/x86/x86/identcpu.c for the lines of features; kern.vm_guest as in sys/kern/subr_param.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from roost.hosts import cpu

MIB = 1 << 20
SYSCTLS = (
    "hw.model", "hw.machine", "hw.ncpu", "hw.physmem", "hw.pagesize", "kern.smp.cores", "kern.ostype", "vm.ndomains",
    "kern.vm_guest", "security.jail.jailed",
    "vm.stats.vm.v_free_count", "vm.stats.vm.v_inactive_count", "vm.stats.vm.v_laundry_count",
)  # fmt: skip
RECLAIMABLE = SYSCTLS[-3:]  # pages: free, and what can be taken back when asked for
# identcpu.c's names of flags -> Linux's; all others are the same in lower case.
FLAGS = {"sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "lahf": "lahf_lm"}
ANY_ADDRESS = {"tcp4": str(IPv4Address(0)), "tcp6": str(IPv6Address(0)), "tcp46": str(IPv6Address(0))}
PCI_HEAD = re.compile(r"^(\w+?)(\d+)@pci(\d+):(\d+):(\d+):(\d+):\s+class=0x([0-9a-f]{6})\b(.*)$")


@dataclass(frozen=True)
class Machine:
    """Processor and memory of a FreeBSD machine. Sizes in MiB."""

    model: str
    cores: int
    flags: tuple[str, ...]
    cpu: cpu.Cpu
    total_mib: int
    available_mib: int


@dataclass(frozen=True)
class Display:
    """A PCI device of `pciconf -lv`: slot as Linux writes it, class, vendor, device as hex digits, driver and name."""

    slot: str
    kind: str
    vendor: str
    device: str
    driver: str
    name: str


def sysctl(text: str) -> dict[str, str]:
    """Return name -> value of `sysctl NAME...`: `hw.ncpu: 4`."""
    return {name: value for name, colon, value in (line.partition(": ") for line in text.splitlines()) if colon}


def flags(dmesg: str) -> tuple[str, ...]:
    """Return the processor's flags under Linux's names, from the lines `Features=0x..<SSE3,...>` of dmesg.boot."""
    found: set[str] = set()
    for names in re.findall(r"^\s+(?:AMD |Structured Extended )?Features\d?=0x[0-9a-f]+<([^>]*)>", dmesg, re.MULTILINE):
        found |= {FLAGS.get(name.lower(), name.lower()) for name in names.split(",")}
    return tuple(sorted(found))


def describe(values: Mapping[str, str], dmesg: str) -> Machine:
    """Return processor and memory."""
    origin = re.search(r'Origin="(\w+)"', dmesg)
    packages = re.search(r"(\d+) package\(s\)", dmesg)
    known = flags(dmesg)
    page = _number(values, "hw.pagesize")
    return Machine(
        model=" ".join(values.get("hw.model", "").split()),
        cores=_number(values, "hw.ncpu"),
        flags=known,
        cpu=cpu.Cpu(
            vendor=cpu.X86_VENDORS.get(origin.group(1), origin.group(1)) if origin else "",
            isa=cpu.isa_of(known),
            physical_cores=_number(values, "kern.smp.cores") or _number(values, "hw.ncpu"),
            sockets=int(packages.group(1)) if packages else 1,
            numa_nodes=_number(values, "vm.ndomains") or 1,
            cache_mib=0,
            quota=None,
        ),
        total_mib=_number(values, "hw.physmem") // MIB,
        available_mib=sum(_number(values, name) for name in RECLAIMABLE) * page // MIB,
    )


def virtualisation(values: Mapping[str, str]) -> str:
    """Name the jail or hypervisor this runs in, or `none`."""
    if values.get("security.jail.jailed", "").strip() == "1":
        return "jail"
    return values.get("kern.vm_guest", "").strip() or "none"


def default_interface(text: str) -> str:
    """Return the interface of the default route from `route -n get default`, or an empty string."""
    found = re.search(r"^\s*interface: (\S+)$", text, re.MULTILINE)
    return found.group(1) if found else ""


def listening(text: str) -> list[tuple[str, int, int, str]]:
    """Return address, port, pid and program of each TCP line of `sockstat -46l`: `*:22` is any address."""
    found: list[tuple[str, int, int, str]] = []
    for line in text.splitlines():
        row = line.split()
        if len(row) < 7 or row[-3] not in ANY_ADDRESS or not row[-5].isdigit():
            continue
        address, _, port = row[-2].rpartition(":")
        if port.isdigit():
            where = ANY_ADDRESS[row[-3]] if address == "*" else address.strip("[]").partition("%")[0]
            found.append((where, int(port), int(row[-5]), row[1]))
    return found


def _number(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "").strip()
    return int(text) if text.isdigit() else 0


def pci_devices(text: str) -> list[Display]:
    """Read `pciconf -lv`; since FreeBSD 13 vendor and device are columns, before that both are in `chip=`."""
    found: list[Display] = []
    blocks = re.split(r"\n(?=\S)", text)
    for block in blocks:
        lines = block.splitlines()
        head = PCI_HEAD.match(lines[0]) if lines else None
        if not head:
            continue
        driver, _, domain, bus, device, function, kind, rest = head.groups()
        columns = dict(re.findall(r"(\w+)=0x([0-9a-f]+)", rest))
        chip = columns.get("chip", "").rjust(8, "0")
        name = re.search(r"^\s+device\s*= '(.*)'$", block, re.MULTILINE)
        found.append(
            Display(
                slot=f"{int(domain):04x}:{int(bus):02x}:{int(device):02x}.{function}",
                kind=kind,
                vendor=columns.get("vendor", chip[4:]),
                device=columns.get("device", chip[:4]),
                driver="" if driver == "none" else driver,
                name=name.group(1) if name else "",
            )
        )
    return found


def addresses(text: str) -> list[tuple[str, str]]:
    """Return interface and address with prefix from `ifconfig -a`."""
    found: list[tuple[str, str]] = []
    interface = ""
    for line in text.splitlines():
        head = re.match(r"(\w+): flags=", line)
        v4 = re.match(r"\s+inet ([\d.]+) .*?netmask 0x([0-9a-f]{8})", line)
        v6 = re.match(r"\s+inet6 ([0-9a-f:]+)(?:%\w+)? .*?prefixlen (\d+)", line)
        if head:
            interface = head.group(1)
        elif v4:
            found.append((interface, str(ip_interface(f"{v4.group(1)}/{IPv4Address(int(v4.group(2), 16))}"))))
        elif v6:
            found.append((interface, f"{v6.group(1)}/{v6.group(2)}"))
    return found
