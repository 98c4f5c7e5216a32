"""What kind of disk a path lies on, which decides how long a model takes to load. Pure. Standard library only.

Python 3.9+. Kinds: nvme, ssd, hdd, mmc, virtual (a hypervisor's: its speed cannot be told), network, tmpfs, unknown.
Sources: kernel, Documentation/ABI/stable/sysfs-block (rotational, slaves) and proc_mounts(5); FreeBSD: nda(4), nvd(4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
    "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs",
}  # fmt: skip
IN_MEMORY = {"tmpfs", "ramfs"}
VIRTUAL = ("vd", "xvd", "vtbd")  # virtio and Xen report rotational=1 whatever lies below
SLOWEST_FIRST = ("network", "hdd", "mmc", "virtual", "unknown", "ssd", "nvme")
OCTAL_SPACE = "\\040"


@dataclass(frozen=True)
class BlockDevice:
    """A block device: `number` is `259:1`, `below` the whole disk of a partition, or what dm and md are made of."""

    name: str
    number: str
    rotational: bool | None
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """One line of /proc/mounts, or of FreeBSD's `mount -p`."""

    source: str
    point: str
    filesystem: str


def mounts(text: str) -> list[Mount]:
    """Read /proc/mounts or `mount -p`: both are fstab(5)'s columns."""
    rows = [line.split() for line in text.splitlines()]
    return [Mount(row[0], row[1].replace(OCTAL_SPACE, " "), row[2]) for row in rows if len(row) >= 3]


def mount_of(path: str, table: Sequence[Mount]) -> Mount | None:
    """Return the mount that holds a path; of two on one point the later one hides the other."""
    best: Mount | None = None
    for mount in table:
        prefix = mount.point.rstrip("/") + "/"
        if f"{path}/".startswith(prefix) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def kind_of(mount: Mount | None, number: str, devices: Mapping[str, BlockDevice]) -> str:
    """Return the kind of disk below a mount; `number` is what stat says of the path, empty if it does not matter."""
    if mount is None:
        return "unknown"
    if mount.filesystem in IN_MEMORY:
        return "tmpfs"
    if mount.filesystem in NETWORK or mount.filesystem.startswith("nfs"):
        return "network"
    by_number = {device.number: device.name for device in devices.values()}
    return device_kind(by_number.get(number, mount.source.rpartition("/")[2]), devices)


def device_kind(name: str, devices: Mapping[str, BlockDevice], depth: int = 0) -> str:
    """Return a device's kind; one made of several is as slow as the slowest."""
    device = devices.get(name)
    if device and device.below and depth < len(devices):
        kinds = {device_kind(below, devices, depth + 1) for below in device.below}
        return min(kinds, key=SLOWEST_FIRST.index)
    if name.startswith(("nvme", "nda", "nvd")):
        return "nvme"
    if name.startswith("mmcblk"):
        return "mmc"
    if name.startswith(VIRTUAL):
        return "virtual"
    if device is None or device.rotational is None:
        return "unknown"
    return "hdd" if device.rotational else "ssd"
