"""The base image's root file system: a small Debian by debootstrap, with the security updates of its suite."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from roost.fleet.artifacts.apt import KEYRING, AptRoot, Source, explain
from roost.fleet.artifacts.resolution import Resolution, Wanted
from roost.fleet.artifacts.sources import Mirrors
from roost.fleet.artifacts.store import tag_of
from roost.ops.errors import RoostError
from roost.ops.run import run
from roost.ops.trust import write_trust

FORMAT = 2  # raise it when the way of making the root changes
EPOCH = "2020-01-01 00:00:00Z"
SPACE = 700 << 20
# A container needs neither its package lists and caches nor manuals; licences (doc/*/copyright) stay.
EMPTIED = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/log",
    "tmp",
    "run",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "debs",
)
DPKG_SETTINGS = "etc/dpkg/dpkg.cfg.d/roost-build"
REMOVED = (
    DPKG_SETTINGS,
    "etc/resolv.conf",
    "etc/hostname",
    "etc/apt/sources.list",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/available",
    "var/lib/systemd/random-seed",
)


def base_tag(resolution: Resolution) -> str:
    """Return the tag of the base image made of these packages."""
    return tag_of({"format": FORMAT, "wanted": resolution.wanted.model_dump(), "versions": resolution.versions})


def python_of(resolution: Resolution) -> str:
    """Return the minor version of Python in the base image, e.g. `3.11`.

    Raises:
        RoostError: it holds no Python.
    """
    match = re.match(r"(\d+\.\d+)", resolution.version_of("python3-minimal", "python3"))
    if match is None:
        raise RoostError(
            "The base image has no Python for the agent.", fix="Add python3-minimal to images_base_packages."
        )
    return match[1]


def glibc_of(resolution: Resolution) -> int:
    """Return the minor version of glibc 2 in the base image."""
    match = re.match(r"2\.(\d+)", resolution.version_of("libc6"))
    return int(match[1]) if match else 0


def base_sources(wanted: Wanted, mirrors: Mirrors) -> list[Source]:
    """Return where the base's packages come from: the suite, and its security updates if the host has an archive."""
    security = [Source(mirrors.security, f"{wanted.suite}-security")] if mirrors.security else []
    return [Source(mirrors.main, wanted.suite), *security]


def _debootstrap(words: Sequence[str | Path], ca: Path | None) -> str:
    if not KEYRING.is_file():
        raise RoostError(
            f"{KEYRING} is missing, so signatures cannot be checked.", fix="apt-get install debian-archive-keyring"
        )
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    with tempfile.TemporaryDirectory(prefix="roost-wget-") as name:
        if ca is not None:
            settings = Path(name) / "wgetrc"
            settings.write_text(f"ca_certificate = {write_trust(ca, Path(name) / 'ca.pem')}\n")
            environment["WGETRC"] = str(settings)
        try:
            return run(["debootstrap", *words], env=environment, fix="apt-get install debootstrap")
        except RoostError as error:
            raise explain(error, "debootstrap failed") from error


def _options(wanted: Wanted) -> list[str | Path]:
    checks = [f"--keyring={KEYRING}", "--force-check-gpg"]
    return ["--variant=minbase", f"--arch={wanted.arch}", *checks, f"--include={','.join(wanted.packages)}"]


def package_names(wanted: Wanted, mirrors: Mirrors, ca: Path | None) -> list[str]:
    """Return the names of all packages debootstrap would install, by its own rules."""
    with tempfile.TemporaryDirectory(prefix="roost-base-") as name:
        words = [*_options(wanted), "--print-debs", wanted.suite, Path(name) / "root", mirrors.main]
        return sorted(set(_debootstrap(words, ca).split()))


def build_root(
    resolution: Resolution,
    root: Path,
    mirrors: Mirrors,
    apt: AptRoot,
    debs_dir: Path,
    *,
    ca: Path | None,
    notify: Callable[[str], None],
) -> None:
    """Make the root file system in the folder `root`, exactly with the resolved versions.

    Raises:
        RoostError: packages cannot be fetched, debootstrap failed, or a version differs from what was resolved.
    """
    wanted = resolution.wanted
    paths = apt.fetch(resolution.packages, debs_dir, notify)
    notify(f"Making a Debian {wanted.suite} root of {len(paths)} packages")
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".partial-debs-") as name:
        debs = Path(name)
        for package in resolution.packages:
            _link(paths[package.name], debs / package.deb)
        words = [*_options(wanted), f"--cache-dir={debs}"]
        _write_dpkg_settings(root)
        try:
            _debootstrap([*words, wanted.suite, root, mirrors.main], ca)
        finally:
            release_mounts(root)
    installed = installed_versions(root)
    newer = [p for p in resolution.packages if installed.get(p.name) != p.version]
    if newer:
        notify(f"Installing {len(newer)} security updates")
        (root / "debs").mkdir()
        for package in newer:
            shutil.copyfile(paths[package.name], root / "debs" / package.deb)
        inside = [f"/debs/{p.deb}" for p in newer]
        _inside(root, "dpkg", "--install", "--force-confold", *inside)
    left = {
        name: version for name, version in installed_versions(root).items() if resolution.version_of(name) != version
    }
    if left:
        raise RoostError(
            f"The base image got other packages than were resolved: {', '.join(sorted(left))}.",
            fix="Run `roost images update`.",
        )
    clean(root)
    # No package compiles this part of the standard library, and a read-only root never could.
    _inside(root, "python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/usr/lib")


def mounts_below(folder: Path, table: str) -> list[Path]:
    """Return what is mounted below a folder, the deepest first; `table` is the text of /proc/self/mounts."""
    points = (Path(line.split()[1].replace("\\040", " ")) for line in table.splitlines() if line.strip())
    return sorted((p for p in points if p != folder and p.is_relative_to(folder)), key=lambda p: -len(p.parts))


def release_mounts(folder: Path) -> None:
    """Unmount what debootstrap mounted below a folder and could not unmount because it was killed.

    Without this, removing the folder would reach into the running system's /proc and /sys.
    """
    for point in mounts_below(folder.resolve(), Path("/proc/self/mounts").read_text()):
        run(["umount", "--lazy", point])


def _inside(root: Path, *words: str) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    run(["chroot", root, *words], env=environment)


def _write_dpkg_settings(root: Path) -> None:
    """Have dpkg leave manuals and the like out, and not wait for the disk: a root that is not whole is thrown away."""
    settings = root / DPKG_SETTINGS
    settings.parent.mkdir(parents=True)
    excluded = [f"path-exclude=/{name}/*\n" for name in EMPTIED if name.startswith("usr/share/")]
    settings.write_text("force-unsafe-io\n" + "".join(excluded))


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def installed_versions(root: Path) -> dict[str, str]:
    """Return version by name of the packages dpkg has installed in a root."""
    words = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", "--showformat", "${Package} ${Version}\n"]
    return dict(line.split(" ", 1) for line in run(words).splitlines() if " " in line)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def clean(root: Path) -> None:
    """Remove what differs from build to build or is of no use in a container."""
    doomed = [root / name for name in REMOVED]
    for pattern in ("var/cache/**/*-old", "var/lib/dpkg/*-old", "usr/**/__pycache__"):
        doomed += root.glob(pattern)
    for folder in filter(_is_real_folder, (root / name for name in EMPTIED)):
        doomed += folder.iterdir()
    for package in filter(_is_real_folder, (root / "usr/share/doc").iterdir()):
        doomed += [path for path in package.iterdir() if path.name != "copyright"]
    for path in doomed:
        _remove(path)
    _remove(root / "debs")
    (root / "etc/machine-id").write_text("")
    (root / "tmp").chmod(0o1777)


def pack(root: Path, tar: Path) -> None:
    """Write a root file system as a tar that is the same for the same files."""
    run(
        [
            *("tar", "--create", "--file", tar, "--directory", root, "--sort=name", f"--mtime={EPOCH}"),
            *("--numeric-owner", "--format=pax", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"),
            *("--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "."),
        ]
    )
