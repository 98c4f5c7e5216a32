"""Collecting from a made-up /sys."""

from __future__ import annotations

from pathlib import Path

from roost.hosts.collect import block_devices, cpu_limits, device_nodes, libraries, memory_limits, sysfs_texts
from roost.hosts.disks import BlockDevice
from roost.hosts.gpus import DeviceNode, Gpu, with_nodes

MEMBERSHIPS = "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n0::/system.slice/roost.service\n"


def tree(sys: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = sys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_only_graphics_are_read_and_topology_when_asked_for(tmp_path: Path) -> None:
    pci = "bus/pci/devices"
    tree(
        tmp_path,
        {
            f"{pci}/0000:01:00.0/class": "0x030000\n",
            f"{pci}/0000:01:00.0/tile0/physical_vram_size_bytes": "12884901888\n",
            f"{pci}/0000:01:00.0/drm/card1/lmem_total_bytes": "1\n",
            f"{pci}/0000:02:00.0/class": "0x020000\n",
            f"{pci}/0000:02:00.0/resource": "a card of the network\n",
            "class/drm/card0/device/uevent": "DRIVER=asahi\n",
            "devices/system/cpu/cpu0/topology/thread_siblings_list": "0\n",
        },
    )
    found = sysfs_texts(tmp_path, topology=False)
    assert found == {
        f"/sys/{pci}/0000:01:00.0/tile0/physical_vram_size_bytes": "12884901888\n",
        f"/sys/{pci}/0000:01:00.0/drm/card1/lmem_total_bytes": "1\n",
        "/sys/class/drm/card0/device/uevent": "DRIVER=asahi\n",
    }
    more = sysfs_texts(tmp_path, topology=True)
    assert set(more) - set(found) == {"/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"}


def test_block_devices_know_what_lies_below_them(tmp_path: Path) -> None:
    disk = "devices/pci/nvme0n1"
    tree(
        tmp_path,
        {
            f"{disk}/dev": "259:0\n",
            f"{disk}/queue/rotational": "0\n",
            f"{disk}/nvme0n1p1/dev": "259:1\n",
            f"{disk}/nvme0n1p1/partition": "1\n",
            "devices/virtual/dm-0/dev": "254:0\n",
            "devices/virtual/dm-0/queue/rotational": "1\n",
            "devices/virtual/dm-0/slaves/nvme0n1p1": "",
        },
    )
    links = tmp_path / "class/block"
    links.mkdir(parents=True)
    for name, target in (("nvme0n1", disk), ("nvme0n1p1", f"{disk}/nvme0n1p1"), ("dm-0", "devices/virtual/dm-0")):
        (links / name).symlink_to(tmp_path / target)
    assert list(block_devices(tmp_path)) == [
        BlockDevice("dm-0", "254:0", rotational=True, below=("nvme0n1p1",)),
        BlockDevice("nvme0n1", "259:0", rotational=False),
        BlockDevice("nvme0n1p1", "259:1", rotational=None, below=("nvme0n1",)),
    ]


def test_limits_of_processor_time_up_to_the_root(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "fs/cgroup/system.slice/roost.service/cpu.max": "max 100000\n",
            "fs/cgroup/system.slice/cpu.max": "200000 100000\n",
            "fs/cgroup/cpu/docker/cpu.cfs_quota_us": "50000\n",
            "fs/cgroup/cpu/docker/cpu.cfs_period_us": "100000\n",
            "fs/cpu.max": "1 100000\n",  # above the root: none of ours
        },
    )
    assert list(cpu_limits(MEMBERSHIPS, tmp_path)) == ["max 100000", "200000 100000", "50000 100000"]
    assert list(cpu_limits("", tmp_path)) == []


def test_limits_of_memory_version_2(tmp_path: Path) -> None:
    """A service below a slice: each level's own use counts, without the files that were not touched lately."""
    group = "fs/cgroup/system.slice"
    tree(
        tmp_path,
        {
            f"{group}/roost.service/memory.max": "max\n",
            f"{group}/roost.service/memory.high": "3000\n",
            f"{group}/roost.service/memory.current": "1000\n",
            f"{group}/roost.service/memory.stat": "anon 100\ninactive_file 600\nactive_file 300\n",
            f"{group}/memory.max": "4000\n",
            f"{group}/memory.current": "3500\n",
        },
    )
    assert list(memory_limits(MEMBERSHIPS, tmp_path)) == ["3000 400", "4000 3500"]
    assert list(memory_limits("", tmp_path)) == []


def test_limits_of_memory_version_1_in_a_container(tmp_path: Path) -> None:
    """Inside of it the path of /proc/self/cgroup is not there: the root of what is mounted is the container's."""
    tree(
        tmp_path,
        {
            "fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "fs/cgroup/memory/memory.usage_in_bytes": "500\n",
            "fs/cgroup/memory/memory.stat": "cache 1\nhierarchical_memory_limit 2000\ntotal_inactive_file 700\n",
        },
    )
    assert list(memory_limits(MEMBERSHIPS, tmp_path)) == ["9223372036854771712 0", "2000 0"]


def test_libraries_lie_where_distributions_put_them(tmp_path: Path) -> None:
    assert libraries(tmp_path) == []
    tree(tmp_path, {"usr/lib/x86_64-linux-gnu/libze_loader.so.1": ""})
    assert libraries(tmp_path) == ["level-zero"]
    tree(tmp_path, {"usr/lib64/libze_intel_gpu.so.1": ""})
    assert libraries(tmp_path) == ["level-zero", "level-zero-gpu"]


def test_render_nodes_are_found_below_their_cards(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "sys/bus/pci/devices/0000:03:00.0/drm/renderD128/dev": "226:128\n",
            "sys/bus/pci/devices/0000:03:00.0/drm/card0/dev": "226:0\n",
            "sys/bus/pci/devices/0000:04:00.0/drm/renderD129/dev": "226:129\n",
            "dev/dri/renderD128": "",
            "dev/kfd": "",
        },
    )
    gid = (tmp_path / "dev/kfd").stat().st_gid
    assert list(device_nodes(tmp_path / "sys", tmp_path / "dev")) == [
        DeviceNode("/dev/dri/renderD128", gid, "0000:03:00.0"),
        DeviceNode("/dev/kfd", gid),
    ]


def test_the_root_group_opens_no_card() -> None:
    gpu = with_nodes(Gpu("0000:03:00.0", "AMD", "", "amdgpu"), [DeviceNode("/dev/dri/renderD128", 0, "0000:03:00.0")])
    assert (gpu.nodes, gpu.gids) == (("/dev/dri/renderD128",), ())
