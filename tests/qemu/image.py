"""The disk of a machine: a Debian root with a kernel, with Roost staged into it or installed, as a file.

mke2fs fills it from the folder: nothing is mounted.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.e2e import story
from tests.hosts import roots
from tests.hosts.docker import docker
from tests.hosts.host import SYSTEMD, Host
from tests.hosts.staging import staged_root
from tests.qemu.machine import Image

# What an operator puts into an image's root: a kernel, the agent that takes commands from outside, Python for Roost.
MACHINE = replace(
    roots.SYSTEMD,
    name="machine",
    include=(*roots.SYSTEMD.include, "python3", "linux-image-cloud-amd64", "qemu-guest-agent"),
)
DISK = "3G"
FIXED = 1  # e2fsck's exit code where it corrected something and all is in order
# What a machine has of its network's settings; a container is given its address from outside.
SCRIPT = "usr/local/sbin/address"
ADDRESS = """#!/bin/sh
for card in /sys/class/net/e*; do
    card=${{card##*/}}
    ip link set "$card" up
    ip address add {address}/24 dev "$card"
    ip route add default via {gateway} dev "$card"
done
"""
UNIT = f"""[Unit]
Description=The address that this machine had when it was set up
DefaultDependencies=no
Before=network-pre.target network.target
After=systemd-udev-settle.service
Wants=systemd-udev-settle.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/{SCRIPT}
"""


def staged_image(folder: Path, *, cache: Path, repository: Path) -> Image:
    """Make a root, stage Roost into it, and make it a disk below `folder`."""
    return _disk_of(staged_root(MACHINE, folder, cache=cache, repository=repository), folder)


def installed_image(folder: Path, *, cache: Path, repository: Path) -> Image:
    """Set up a container by `bootstrap.sh --run-local`, switch it off, and make what it has on its disk a machine's.

    Needs the dockerd of tests/run. What is done in minutes there would take an hour where the processor is emulated.
    """
    kind = replace(SYSTEMD, root=MACHINE)
    with story.clean_site(kind, "host-q", cache=cache, repository=repository) as site:
        story.first_run(site, "--run-local")
        root = _switched_off(site.host, folder)
    return _disk_of(root, folder)


def _switched_off(host: Host, folder: Path) -> Path:
    """Switch a host off in order; return its root below `folder`, which gives itself the address that it had."""
    root = folder / "root"
    root.mkdir()
    docker("stop", "--time", "60", host.name)
    docker("export", "--output", str(folder / "root.tar"), host.name)
    subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-xf", str(folder / "root.tar")], check=True)
    (folder / "root.tar").unlink()
    (root / "etc/hostname").write_text(f"{host.name}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.name}\n")
    units = root / "etc/systemd/system"
    (root / SCRIPT).write_text(ADDRESS.format(address=host.address, gateway=host.lan.address(1)))
    (root / SCRIPT).chmod(0o755)
    (units / "address.service").write_text(UNIT)
    (units / "sysinit.target.wants").mkdir(exist_ok=True)
    (units / "sysinit.target.wants/address.service").symlink_to("/etc/systemd/system/address.service")
    return root


def _disk_of(root: Path, folder: Path) -> Image:
    image = Image(folder / "disk.ext4", folder / "vmlinuz", folder / "initrd.img")
    for name, target in (("vmlinuz-*", image.kernel), ("initrd.img-*", image.initrd)):
        (found,) = (root / "boot").glob(name)
        shutil.copyfile(found, target)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image.disk), DISK], check=True)
    shutil.rmtree(root)
    return image


def file_system_faults(image: Image) -> str:
    """Look at a disk that is not in use; return what e2fsck finds wrong, nothing if it is in order.

    What stands in the journal is brought in first, as each mount does: a machine whose containers were still there when
    it went down may not have had its root mounted read-only.
    """
    replayed = subprocess.run(
        ["e2fsck", "-p", "-E", "journal_only", str(image.disk)], capture_output=True, text=True, check=False
    )
    if replayed.returncode > FIXED:
        return replayed.stdout + replayed.stderr
    done = subprocess.run(["e2fsck", "-f", "-n", str(image.disk)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
