"""From hardware to findings: each is shown to fire, and to be silent when all is fine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from roost.hosts.facts import Disk, HostFacts, facts_from
from roost.hosts.findings_hardware import (
    DeviceFile,
    HardwareSeen,
    hardware_findings,
    hardware_not_checked,
    look_at_hardware,
)
from roost.hosts.gpu_nvidia import Nvidia
from roost.hosts.gpus import Gpu
from tests.unit.hosts.machines import machine
from tests.unit.hosts.records import record

MODELS = "/var/lib/roost/models"
RENDER = DeviceFile("/dev/dri/renderD128", 0o660, 104)
AMD = Gpu("0000:03:00.0", "AMD", "RX 7900 XTX", "amdgpu", 24560)
INTEL = Gpu("0000:03:00.0", "Intel", "Arc A770", "xe", 16288)
NVIDIA = Gpu("0000:01:00.0", "NVIDIA", "RTX 4090", "nvidia", 24564)
GOOD_NVIDIA = Nvidia("550.54.14", "12.4", (11, 12), "")
NO_NVIDIA = Nvidia("", "", (), "")
SEEN = HardwareSeen((RENDER,), 32000, MODELS)


def host(changes: dict[str, Any]) -> HostFacts:
    facts = dataclasses.replace(
        facts_from(machine("systemd-container")),
        arch="x86_64", cpu_flags=("lm", "avx2"), virtualisation="none", memory_total_mib=32000, memory_limit_mib=None,
        disks=(Disk(MODELS, 1, 900000, 500000, writable=True, kind="nvme", filesystem="ext4"),),
        gpus=(), nvidia=NO_NVIDIA,
    )  # fmt: skip
    return dataclasses.replace(facts, **changes)


def found(facts: HostFacts, seen: HardwareSeen = SEEN) -> list[str]:
    findings = hardware_findings(facts, seen)
    assert all(f.what and f.why and f.fix for f in findings)
    return [f"{f.severity} {f.id}" for f in findings]


def disk(kind: str, *, writable: bool = True) -> tuple[Disk, ...]:
    return (Disk(MODELS, 1, 900000, 500000, writable=writable, kind=kind),)


@pytest.mark.parametrize(
    ("changes", "seen", "expected"),
    [
        ({}, SEEN, []),
        ({"gpus": (AMD,)}, SEEN, []),
        ({"gpus": (INTEL,)}, SEEN, []),
        (
            {"gpus": (NVIDIA,), "nvidia": GOOD_NVIDIA},
            HardwareSeen((DeviceFile("/dev/nvidia0", 0o666, 0),), 32000, MODELS),
            [],
        ),
        ({"cpu_flags": ("lm", "avx")}, SEEN, ["info cpu:avx2"]),
        ({"cpu_flags": ("lm", "avx"), "virtualisation": "kvm"}, SEEN, ["warning cpu:avx2"]),
        ({"cpu_flags": ()}, SEEN, []),
        ({"cpu_flags": ("asimd",), "arch": "aarch64"}, SEEN, []),
        ({"memory_limit_mib": 4096}, SEEN, ["info memory:cgroup"]),
        ({"memory_limit_mib": 32000}, SEEN, []),
        ({"disks": disk("hdd")}, SEEN, ["info models-disk"]),
        ({"disks": disk("mmc")}, SEEN, ["info models-disk"]),
        ({"disks": disk("network")}, SEEN, ["info models-disk"]),
        ({"disks": disk("tmpfs")}, SEEN, ["warning models-disk"]),
        ({"disks": disk("ssd", writable=False)}, SEEN, ["error models-disk:read-only"]),
        ({"nvidia": GOOD_NVIDIA}, SEEN, ["warning nvidia"]),
        ({"nvidia": dataclasses.replace(NO_NVIDIA, problem="No devices were found")}, SEEN, ["warning nvidia"]),
        (
            {"gpus": (dataclasses.replace(NVIDIA, memory_mib=0),)},
            HardwareSeen((DeviceFile("/dev/nvidia0", 0o666, 0),), 32000, MODELS),
            ["warning nvidia"],
        ),
        (
            {"gpus": (NVIDIA,), "nvidia": Nvidia("440.100", "10.2", (), "")},
            HardwareSeen((DeviceFile("/dev/nvidia0", 0o666, 0),), 32000, MODELS),
            ["warning nvidia:cuda"],
        ),
        ({"gpus": (dataclasses.replace(AMD, driver=""),)}, SEEN, [f"warning gpu-driver:{AMD.slot}"]),
        ({"gpus": (dataclasses.replace(NVIDIA, driver="nouveau"),)}, SEEN, [f"warning gpu-driver:{NVIDIA.slot}"]),
        ({"gpus": (dataclasses.replace(NVIDIA, driver="vfio-pci"),)}, SEEN, [f"info gpu-driver:{NVIDIA.slot}"]),
        ({"gpus": (AMD,)}, HardwareSeen((), 32000, MODELS), ["warning device-files:AMD"]),
        ({"gpus": (INTEL,)}, HardwareSeen((), 32000, MODELS), ["warning device-files:Intel"]),
        ({"gpus": (AMD,)}, HardwareSeen(None, 32000, MODELS), []),
        (
            {"gpus": (NVIDIA,), "nvidia": GOOD_NVIDIA},
            HardwareSeen((DeviceFile("/dev/nvidiactl", 0o666, 0),), 32000, MODELS),
            ["warning device-files:NVIDIA"],
        ),
        (
            {"gpus": (AMD,)},
            HardwareSeen((RENDER, DeviceFile("/dev/kfd", 0o660, 0)), 32000, MODELS),
            ["warning device-access:/dev/kfd"],
        ),
        (
            {"gpus": (INTEL,)},
            HardwareSeen((dataclasses.replace(RENDER, mode=0o600),), 32000, MODELS),
            ["warning device-access:/dev/dri/renderD128"],
        ),
        ({"gpus": (INTEL,)}, HardwareSeen((dataclasses.replace(RENDER, mode=0o666, gid=0),), 32000, MODELS), []),
    ],
)
def test_each_finding(changes: dict[str, Any], seen: HardwareSeen, expected: list[str]) -> None:
    assert found(host(changes), seen) == expected


def test_a_container_is_told_how_to_get_its_devices() -> None:
    (finding,) = hardware_findings(host({"gpus": (AMD,), "virtualisation": "docker"}), HardwareSeen((), 32000, MODELS))
    assert "--device /dev/kfd" in finding.fix
    assert "not given" in finding.why


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("nvidia-mismatch", {"nvidia"}),
        ("nvidia-nouveau", {"gpu-driver"}),
        ("amd-lent-to-guest", {"gpu-driver"}),
        ("nvidia-mig-unsliced", {"gpu-mig"}),
        ("nvidia-2x4090", set()),
        ("nvidia-gb10", set()),
        ("intel-n100", set()),
    ],
)
def test_recorded_machines(name: str, ids: set[str]) -> None:
    facts = facts_from(record(name))
    files = (RENDER, DeviceFile("/dev/nvidia0", 0o666, 0))
    findings = hardware_findings(facts, HardwareSeen(files, facts.memory_total_mib, ""))
    assert {f.id.partition(":")[0] for f in findings if f.severity != "info" or "gpu" in f.id} == ids


def test_what_was_not_looked_at_is_named() -> None:
    nothing = HardwareSeen(None, None, MODELS)
    facts = host({"gpus": (AMD,), "cpu_flags": (), "disks": ()})
    assert [item.what.split()[0] for item in hardware_not_checked(facts, nothing)] == [
        "device",
        "whether",
        "how",
        "what",
    ]
    assert hardware_not_checked(host({"gpus": (AMD,)}), SEEN) == []
    (hidden,) = hardware_not_checked(host({"disks": disk("virtual")}), SEEN)
    assert "hypervisor" in hidden.why


def test_the_collector_reads_device_files_and_memory(tmp_path: Path) -> None:
    (tmp_path / "dri").mkdir()
    for name, mode in (("dri/renderD128", 0o660), ("kfd", 0o600), ("nvidia0", 0o666), ("null", 0o666)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "meminfo").write_text("MemTotal: 2048000 kB\nMemAvailable: 1024000 kB\n")
    seen = look_at_hardware(MODELS, tmp_path, tmp_path / "meminfo")
    assert seen.machine_memory_mib == 2000
    assert seen.device_files is not None
    assert [(Path(f.path).name, f.mode) for f in seen.device_files] == [
        ("renderD128", 0o660),
        ("kfd", 0o600),
        ("nvidia0", 0o666),
    ]
    gone = look_at_hardware(MODELS, tmp_path / "no", tmp_path / "no")
    assert (gone.device_files, gone.machine_memory_mib) == (None, None)
