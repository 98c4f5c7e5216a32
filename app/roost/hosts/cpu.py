"""What the processor is: vendor, instruction set level, cores, sockets, NUMA nodes and the cgroup's share of time.

Pure readers of /proc/cpuinfo, sysfs and cgroup files. Standard library only, Python 3.9+.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

KIB_PER_MIB = 1024
TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/{}"
X86_VENDORS = {
    "GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon",
    "CentaurHauls": "VIA", "  Shanghai  ": "Zhaoxin",
}  # fmt: skip
# Levels of the x86-64 psABI, named as Linux names the flags (arch/x86/include/asm/cpufeatures.h):
# LZCNT is `abm`, SSE3 is `pni`, and OSXSAVE is there when `xsave` is.
X86_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}),
)
# Versions of Arm's A profile by what each made mandatory, named as in Linux's Documentation/arch/arm64/elf_hwcaps.rst.
ARM_LEVELS = (
    ("armv8.0-a", {"fp", "asimd"}),
    ("armv8.1-a", {"atomics", "asimdrdm", "crc32"}),
    ("armv8.2-a", {"dcpop"}),
    ("armv8.3-a", {"fcma", "jscvt", "lrcpc"}),
    ("armv8.4-a", {"asimddp", "dit", "flagm", "ilrcpc", "uscat"}),
    ("armv8.5-a", {"bti", "flagm2", "frint", "sb"}),
    ("armv8.6-a", {"bf16", "i8mm"}),
)
# What matrix kernels look for, whatever the version: the name in Features, and the usual one of compilers.
ARM_EXTENSIONS = (
    ("asimdhp", "fp16"), ("asimddp", "dotprod"), ("i8mm", "i8mm"), ("bf16", "bf16"),
    ("sve", "sve"), ("sve2", "sve2"), ("sme", "sme"),
)  # fmt: skip
# CPU implementer and part, as in Linux's arch/arm64/include/asm/cputype.h.
ARM_IMPLEMENTERS = {
    0x41: "Arm", 0x42: "Broadcom", 0x43: "Cavium", 0x48: "HiSilicon", 0x4E: "NVIDIA",
    0x51: "Qualcomm", 0x61: "Apple", 0xC0: "Ampere",
}  # fmt: skip
ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53", (0x41, 0xD04): "Cortex-A35", (0x41, 0xD05): "Cortex-A55", (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72", (0x41, 0xD09): "Cortex-A73", (0x41, 0xD0A): "Cortex-A75", (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1", (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE", (0x41, 0xD49): "Neoverse-N2", (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD85): "Cortex-X925", (0x41, 0xD87): "Cortex-A725", (0x61, 0x022): "M1 Icestorm",
    (0x61, 0x023): "M1 Firestorm", (0x61, 0x024): "M1 Pro Icestorm", (0x61, 0x025): "M1 Pro Firestorm",
    (0x61, 0x028): "M1 Max Icestorm", (0x61, 0x029): "M1 Max Firestorm", (0x61, 0x032): "M2 Blizzard",
    (0x61, 0x033): "M2 Avalanche", (0xC0, 0xAC3): "Ampere-1",
}  # fmt: skip
CPUINFO_ROW = re.compile(r"^([^:\n]+?)[ \t]*:[ \t]*(.*)$", re.MULTILINE)

ARM_CORE = re.compile(r"^CPU implementer\s*: (\w+)\n(?:CPU (?!part).*\n)*CPU part\s*: (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Cpu:
    """A machine's processors. What is not known is an empty string or 0; `quota` is None where no cgroup limits it."""

    vendor: str
    isa: str  # x86-64-v1 to v4, or armv8.2-a+dotprod
    physical_cores: int
    sockets: int
    numa_nodes: int
    cache_mib: int  # the last level of one core's caches
    quota: float | None  # processors' worth of time that our cgroup may use


def describe(files: Mapping[str, str], quotas: Sequence[str] = ()) -> Cpu:
    """Return the processors of a Linux machine from its files; `quotas` are the cgroup's limits, see `quota`."""
    cpuinfo = files.get("/proc/cpuinfo", "")
    rows = dict(reversed(CPUINFO_ROW.findall(cpuinfo)))  # of each key the first
    flags = set((rows.get("flags") or rows.get("Features") or "").split())
    cores, sockets = topology(files)
    return Cpu(
        vendor=vendor(rows),
        isa=isa_of(flags),
        physical_cores=cores,
        sockets=sockets,
        numa_nodes=count_list(files.get("/sys/devices/system/node/online", "")) or 1,
        cache_mib=cache_mib(files),
        quota=quota(quotas),
    )


def vendor(rows: Mapping[str, str]) -> str:
    """Name the maker from the first processor's rows of /proc/cpuinfo."""
    named = rows.get("vendor_id", "")
    if named:
        return X86_VENDORS.get(named, named)
    return ARM_IMPLEMENTERS.get(_hex(rows.get("CPU implementer", "")), "")


def arm_model(cpuinfo: str) -> str:
    """Name the kinds of cores of an ARM machine, biggest part number last; empty if no part is known."""
    kinds = sorted({(_hex(implementer), _hex(part)) for implementer, part in ARM_CORE.findall(cpuinfo)})
    names = [ARM_PARTS[kind] for kind in kinds if kind in ARM_PARTS]
    return f"{ARM_IMPLEMENTERS[kinds[0][0]]} {' + '.join(names)}" if names else ""


def _hex(text: str) -> int:
    return int(text, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", text) else -1


def isa_of(flags: Iterable[str]) -> str:
    """Return the highest level whose flags, and those of all levels below it, are there."""
    have = set(flags)
    if "lm" in have:
        return _highest("x86-64-v1", X86_LEVELS, have)
    if "asimd" not in have:
        return ""
    level = _highest("armv8.0-a", ARM_LEVELS, have)
    if "sve2" in have and level >= "armv8.5":
        level = "armv9.0-a"  # version 9 is 8.5 with SVE2
    return "+".join([level, *(name for flag, name in ARM_EXTENSIONS if flag in have)])


def _highest(level: str, levels: Sequence[tuple[str, set[str]]], have: set[str]) -> str:
    for name, needed in levels:
        if not needed <= have:
            break
        level = name
    return level


def topology(files: Mapping[str, str]) -> tuple[int, int]:
    """Return physical cores and sockets; from /proc/cpuinfo, or sysfs where that does not say (ARM)."""
    pairs: set[tuple[str, str]] = set()
    for block in re.split(r"\n\s*\n", files.get("/proc/cpuinfo", "")):
        rows = dict(CPUINFO_ROW.findall(block))
        if "physical id" in rows and "core id" in rows:
            pairs.add((rows["physical id"], rows["core id"]))
    if pairs:
        return len(pairs), len({socket for socket, _ in pairs})
    cores, sockets = set(), set()
    for number in range(_processors(files)):
        cores.add(files.get(TOPOLOGY.format(number, "thread_siblings_list"), f"{number}").strip())
        sockets.add(files.get(TOPOLOGY.format(number, "core_siblings_list"), "").strip())
    return len(cores), max(1, len(sockets)) if cores else 0


def _processors(files: Mapping[str, str]) -> int:
    return len(re.findall(r"^processor\s*:", files.get("/proc/cpuinfo", ""), re.MULTILINE))


def count_list(text: str) -> int:
    """Count the numbers of a kernel list: `0-3,8` holds five."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += int(last or first) - int(first) + 1
    return count


def cache_mib(files: Mapping[str, str]) -> int:
    """Return the size of the first processor's last cache level in MiB, rounded down."""
    sizes = [files.get(f"/sys/devices/system/cpu/cpu0/cache/index{i}/size", "").strip() for i in (3, 2)]
    known = [int(size[:-1]) for size in sizes if size.endswith("K") and size[:-1].isdigit()]
    return known[0] // KIB_PER_MIB if known else 0


def quota(limits: Sequence[str]) -> float | None:
    """Return the smallest share of time, in processors, of cgroups from ours up to the root.

    Each limit is `QUOTA PERIOD` in microseconds as in cpu.max of version 2 (kernel's cgroup-v2.rst); `max`, and the -1
    of version 1's cpu.cfs_quota_us, are no limit.
    """
    shares: list[float] = []
    for limit in limits:
        words = limit.split()
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            shares.append(int(words[0]) / int(words[1]))
    return min(shares) if shares else None


def usable_cores(listed: int, allowed: int, share: float | None) -> int:
    """Return the processors worth starting threads for: those listed, allowed by affinity, and paid for by quota."""
    known = [count for count in (listed, allowed) if count]
    if share is not None:
        known.append(max(1, math.ceil(share)))
    return min(known, default=0)
