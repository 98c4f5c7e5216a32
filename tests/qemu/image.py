"""The disk of a machine: a Debian root with a kernel, Roost staged into it, as a file system in a file.

mke2fs fills it from the folder: nothing is mounted.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.hosts import roots
from tests.hosts.staging import staged_root
from tests.qemu.machine import Image

# What an operator puts into an image's root: a kernel, the agent that takes commands from outside, Python for Roost.
MACHINE = replace(
    roots.SYSTEMD,
    name="machine",
    include=(*roots.SYSTEMD.include, "python3", "linux-image-cloud-amd64", "qemu-guest-agent"),
)
DISK = "3G"


def make_image(folder: Path, *, cache: Path, repository: Path) -> Image:
    """Make a root, stage Roost into it, and make it a disk below `folder`."""
    root = staged_root(MACHINE, folder, cache=cache, repository=repository)
    image = Image(folder / "disk.ext4", folder / "vmlinuz", folder / "initrd.img")
    for name, target in (("vmlinuz-*", image.kernel), ("initrd.img-*", image.initrd)):
        (found,) = (root / "boot").glob(name)
        shutil.copyfile(found, target)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image.disk), DISK], check=True)
    shutil.rmtree(root)
    return image


def file_system_faults(image: Image) -> str:
    """Look at a disk that is not in use; return what e2fsck finds wrong, nothing if it is in order."""
    done = subprocess.run(["e2fsck", "-f", "-n", str(image.disk)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
