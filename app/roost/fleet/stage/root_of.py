"""What an image's root folder is: its Python, its C library, its init system. Read from its files, nothing is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts.wheels import Target
from roost.ops.errors import RoostError

PARAGRAPH = re.compile(r"\n\n+")
SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")


@dataclass(frozen=True)
class LinuxRoot:
    """A Debian root: for which Python wheels are chosen, and how its release is called."""

    target: Target
    release: str


def look_at_linux(root: Path) -> LinuxRoot:
    """Read what Debian's files say of the root.

    Raises:
        RoostError: it is no Debian root, or lacks Python or systemd, which the staged services need.
    """
    packages = _packages(root)
    if not any((root / name).exists() for name in SYSTEMD):
        raise RoostError(
            f"{root} has no systemd, which starts the staged services.",
            fix="Install systemd and systemd-sysv into it (debootstrap --include=systemd-sysv,python3).",
        )
    if "libpython3-stdlib" not in packages:  # python3-minimal alone has no http, no ssl
        raise RoostError(f"{root} has no Python.", fix="Install python3 into it (debootstrap --include=python3).")
    python = re.match(r"(\d+\.\d+)", packages["libpython3-stdlib"]["Version"])
    libc = re.match(r"2\.(\d+)", packages.get("libc6", {}).get("Version", ""))
    if python is None or libc is None:
        raise RoostError(f"{root} does not say which Python and C library it has.", fix="Use a Debian root.")
    arch = packages["libc6"]["Architecture"]
    return LinuxRoot(Target(python[1], arch, int(libc[1])), _pretty_name(root))


def look_at_freebsd(root: Path) -> str:
    """Return the release that a FreeBSD root says it is.

    Raises:
        RoostError: it is no FreeBSD root.
    """
    if not (root / "etc/rc.subr").is_file():
        raise RoostError(f"{root} is no FreeBSD root: it has no /etc/rc.subr.", fix="Unpack base.txz into it first.")
    return _pretty_name(root)


def _packages(root: Path) -> dict[str, dict[str, str]]:
    """Return the fields of each installed package by its name."""
    try:
        text = (root / "var/lib/dpkg/status").read_text()
    except FileNotFoundError:
        raise RoostError(
            f"{root} is no Debian root: it has no /var/lib/dpkg/status.",
            fix="Make one with debootstrap, then name its folder.",
        ) from None
    found = {}
    for paragraph in PARAGRAPH.split(text):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields
    return found


def _pretty_name(root: Path) -> str:
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            lines = (root / name).read_text().splitlines()
        except (FileNotFoundError, OSError):
            continue
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        return values.get("PRETTY_NAME", "").strip('"') or "unknown"
    return "unknown"
