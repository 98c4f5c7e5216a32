"""Readers of what Linux says of itself."""

from __future__ import annotations

import ipaddress

import pytest

from roost.hosts import gpus, parse

UBUNTU = """PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
"""
ALPINE = """NAME="Alpine Linux"
ID=alpine
VERSION_ID=3.20.3
PRETTY_NAME="Alpine Linux v3.20"
# a comment
BROKEN='no end
"""
PI_CPU = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
SERVER_ARM_CPU = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\n"
XEON_CPU = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 hypervisor\n\nprocessor\t: 1\n"
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t0101A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""
ZERO, FLAGS = "0" * 32, "00000001 00000000 00000001"
V6_ROUTES = f"""fd{"0" * 30} 40 {ZERO} 00 {ZERO} 00000100 {FLAGS}     eth0
{ZERO} 00 {ZERO} 00 fe800000000000000000000000000001 00000400 {FLAGS}     eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
"""
REST = "00000000:00000000 00:00000000 00000000"
TCP = f"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:20A8 00000000:0000 0A {REST}  8361        0 4711 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A {REST}     0        0 22 1 0 100 0 0 10 0
   2: 0100007F:20A8 0100007F:9C4E 01 {REST}     0        0 4712 1 0 20 4 30 10 -1
"""
TCP6 = f"""  sl  local_address  remote_address st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {ZERO}:1226 {ZERO}:0000 0A {REST}     0        0 99 1 0 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1227 {ZERO}:0000 0A {REST}     0        0 98 1 0 100 0 0 10 0
"""
EVERYWHERE = str(ipaddress.IPv4Address(0))


def test_os_release() -> None:
    ubuntu, alpine = parse.os_release(UBUNTU), parse.os_release(ALPINE)
    assert (ubuntu["ID"], ubuntu["ID_LIKE"], ubuntu["VERSION_ID"]) == ("ubuntu", "debian", "24.04")
    assert (alpine["PRETTY_NAME"], alpine["BROKEN"]) == ("Alpine Linux v3.20", "no end")


@pytest.mark.parametrize(
    ("text", "generation"),
    [
        ("12.11\n", 12), ("13.0\n", 13), ("11.9", 11), ("bookworm/sid\n", 11), ("trixie/sid\n", 12),
        ("forky/sid\n", 13), ("sid\n", 14), ("", None), ("kali-rolling\n", None),
    ],
)  # fmt: skip
def test_debian_generation(text: str, generation: int | None) -> None:
    assert parse.debian_generation(text) == generation


@pytest.mark.parametrize(
    ("text", "model", "cores", "flag"),
    [
        (PI_CPU, "Raspberry Pi 4 Model B Rev 1.4", 2, "crc32"),
        (SERVER_ARM_CPU, "ARM implementer 0x41", 1, "sve"),
        (XEON_CPU, "Intel(R) Xeon(R)", 2, "avx2"),
    ],
)
def test_cpu(text: str, model: str, cores: int, flag: str) -> None:
    found = parse.cpu_info(text)
    assert found[:2] == (model, cores)
    assert flag in found[2]


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max\n", None), ("9223372036854771712\n", None), ("536870912\n", 1 << 29), ("", None), ("nonsense", None)],
)
def test_byte_limit(text: str, limit: int | None) -> None:
    assert parse.byte_limit(text) == limit


@pytest.mark.parametrize(
    ("comm", "systemd", "openrc", "init"),
    [
        ("systemd\n", True, False, "systemd"), ("init\n", False, False, "sysvinit"), ("init\n", False, True, "openrc"),
        ("openrc-init\n", False, True, "openrc"), ("bash\n", False, False, "none"), ("bash\n", True, False, "none"),
        ("systemd\n", False, False, "none"), ("", False, False, "none"),
    ],
)  # fmt: skip
def test_init(comm: str, *, systemd: bool, openrc: bool, init: str) -> None:
    assert parse.init_system(comm, systemd_booted=systemd, openrc_booted=openrc) == init


def test_default_route_is_the_cheapest_one_that_is_up() -> None:
    assert parse.default_interface(ROUTES) == "eth0"
    assert parse.default_interface(ROUTES.splitlines()[0]) == ""
    assert parse.default_interface_v6(V6_ROUTES) == "eth0"
    assert parse.default_interface_v6("") == ""


def test_listening_sockets() -> None:
    assert parse.listening(TCP) == [("127.0.0.1", 8360, "4711", 8361), (EVERYWHERE, 22, "22", 0)]
    assert parse.listening(TCP6) == [("::", 4646, "99", 0), ("127.0.0.1", 4647, "98", 0)]
    assert parse.listening("") == []


@pytest.mark.parametrize(
    ("cpu", "dmi", "container", "kernel", "name"),
    [
        ("", "", "docker", "Linux", "docker"),
        ("", "QEMU Standard PC", "", "Linux", "qemu"),
        (XEON_CPU, "", "", "Linux", "vm"),
        ("", "", "", "Linux version 5.15 (Microsoft@Microsoft.com)", "wsl"),
        ("", "Dell Inc. PowerEdge R740", "", "Linux", "none"),
        ("", "Microsoft Corporation Virtual Machine", "", "Linux version 6.1", "hyper-v"),
    ],
)
def test_virtualisation(cpu: str, dmi: str, container: str, kernel: str, name: str) -> None:
    assert parse.virtualisation(cpu, dmi, container, kernel) == name


def test_truncated_netlink_answer_is_no_crash() -> None:
    assert parse.addresses(b"\x4c\x00\x00\x00\x14\x00", {}) == []
    assert parse.addresses(b"\x00" * 64, {}) == []


@pytest.mark.parametrize(
    ("text", "version"),
    [("Docker version 20.10.24+dfsg1, build 5d6db84\n", "20.10.24"), ("27.5.1\n", "27.5.1"), ("", ""), ("none", "")],
)
def test_version_number(text: str, version: str) -> None:
    assert parse.version_number(text) == version


def test_gpus_of_a_workstation() -> None:
    devices = [
        gpus.PciDevice("0000:00:02.0", "030000", "8086", "a780", "i915"),
        gpus.PciDevice("0000:01:00.0", "030000", "10de", "2684", "nvidia"),
        gpus.PciDevice("0000:01:00.1", "040300", "10de", "22ba", "snd_hda_intel"),
        gpus.PciDevice("0000:02:00.0", "030000", "1234", "1111", "bochs-drm"),
        gpus.PciDevice("0000:41:00.0", "038000", "1002", "740f", ""),
    ]
    lspci = '00:02.0 "VGA compatible controller" "Intel Corporation" "Raptor Lake-S GT1" -r04 "" ""\n'
    nvidia = "00000000:01:00.0, NVIDIA GeForce RTX 4090, 24564\n00000000:81:00.0, NVIDIA GB10, [N/A]\n"
    found = gpus.find(devices, lspci, nvidia)
    assert [(g.slot, g.vendor, g.name, g.memory_mib) for g in found] == [
        ("0000:00:02.0", "Intel", "Raptor Lake-S GT1", 0),
        ("0000:01:00.0", "NVIDIA", "NVIDIA GeForce RTX 4090", 24564),
        ("0000:41:00.0", "AMD", "device 740f", 0),
        ("0000:81:00.0", "NVIDIA", "NVIDIA GB10", 0),
    ]
    assert gpus.find([], "", "NVIDIA-SMI has failed because it couldn't communicate with the driver.\n") == ()
