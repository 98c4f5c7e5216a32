"""Processors: levels, lists, quotas; and what the other readers answer to odd texts."""

from __future__ import annotations

import pytest

from roost.hosts import cpu
from roost.hosts.disks import BlockDevice, Mount, device_kind, kind_of, mount_of, mounts
from roost.hosts.gpu_nvidia import serves_cuda, slices

V2 = {"lm", "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
V4 = V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (set(), ""),
        ({"lm"}, "x86-64-v1"),
        (V2, "x86-64-v2"),
        (V3, "x86-64-v3"),
        (V4, "x86-64-v4"),
        (V4 - {"movbe"}, "x86-64-v2"),  # a level holds all below it
        (V3 | {"avx512f"}, "x86-64-v3"),
        ({"fp", "asimd"}, "armv8.0-a"),
        ({"fp", "asimd", "asimddp"}, "armv8.0-a+dotprod"),
    ],
)
def test_levels(flags: set[str], level: str) -> None:
    assert cpu.isa_of(flags) == level


@pytest.mark.parametrize(("text", "count"), [("", 0), ("0\n", 1), ("0-3,8", 5), ("0-1,4-5\n", 4)])
def test_kernel_lists(text: str, count: int) -> None:
    assert cpu.count_list(text) == count


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ([], None),
        (["max 100000"], None),
        (["-1 100000"], None),
        (["150000 100000", "max 100000", "100000 100000"], 1.0),
    ],
)
def test_quota(limits: list[str], share: float | None) -> None:
    assert cpu.quota(limits) == share


@pytest.mark.parametrize(
    ("listed", "allowed", "share", "usable"),
    [
        (8, 8, None, 8),
        (8, 4, None, 4),
        (8, 8, 2.5, 3),
        (8, 8, 0.1, 1),
        (2, 0, 16.0, 2),
        (0, 4, None, 4),
        (0, 0, None, 0),
    ],
)
def test_usable_cores(listed: int, allowed: int, share: float | None, usable: int) -> None:
    assert cpu.usable_cores(listed, allowed, share) == usable


@pytest.mark.parametrize(
    ("driver", "major", "served"),
    [
        ("535.129.03", 12, True),
        ("525.60.13", 12, True),
        ("525.60.11", 12, False),
        ("535.129.03", 13, False),
        ("580.65.06", 13, True),
        ("470.182.03", 11, True),
        ("", 12, None),
        ("535.129.03", 99, None),
    ],
)
def test_drivers_serve_cuda(driver: str, major: int, served: bool | None) -> None:
    assert serves_cuda(driver, major) is served


def test_slices_of_two_cards() -> None:
    text = (
        "GPU 0: A (UUID: GPU-1)\n  MIG 1c.3g.20gb     Device  0: (UUID: MIG-1)\n"
        "GPU 1: B (UUID: GPU-2)\n  MIG 1g.10gb+me  Device  0: (UUID: MIG-2)\nnothing\n"
    )
    assert slices(text) == {0: (20480,), 1: (10240,)}


def test_a_device_below_itself_is_no_endless_search() -> None:
    devices = {"dm-0": BlockDevice("dm-0", "1:0", None, ("dm-0",))}
    assert device_kind("dm-0", devices) == "unknown"


def test_the_longest_and_latest_mount_holds_a_path() -> None:
    table = mounts("/dev/a / ext4 rw 0 0\n/dev/b /var xfs rw 0 0\n/dev/c /var xfs rw 0 0\n/dev/d /variant xfs rw 0 0\n")
    assert mount_of("/var/lib", table) == Mount("/dev/c", "/var", "xfs")
    assert mount_of("/etc", table) == Mount("/dev/a", "/", "ext4")
    assert kind_of(mount_of("relative", table), "", {}) == "unknown"


def test_several_disks_are_as_slow_as_the_slowest() -> None:
    devices = {
        "md0": BlockDevice("md0", "9:0", False, ("nvme0n1", "sda")),
        "nvme0n1": BlockDevice("nvme0n1", "259:0", False),
        "sda": BlockDevice("sda", "8:0", False),
    }
    assert kind_of(Mount("/dev/md0", "/", "ext4"), "9:0", devices) == "ssd"
