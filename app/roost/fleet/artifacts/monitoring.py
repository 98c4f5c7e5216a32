"""The monitoring tree: Prometheus and promtool from their Debian package, with the libraries they need, in one folder.

Like the engine's it holds its own C library and loader, so it runs on any host, and as the content of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from roost.fleet.artifacts.apt import AptRoot, Package, cached_deb, is_intact
from roost.fleet.artifacts.engine import LOADERS, UNPACKED_PER_DEB_BYTE, unpack_debs
from roost.fleet.artifacts.resolution import Resolution
from roost.fleet.artifacts.store import describe, is_tree, locked, publishing, require_space, tag_of
from roost.ops.errors import RoostError

FORMAT = 1  # raise it when the way of making the tree changes
KIND = "monitoring"
PROGRAM = "usr/bin/prometheus"
CONSOLES = "usr/share/prometheus/web"
# The package's own scripts make users and start services, and need dpkg, perl and more for it; its programs do not.
RUNTIME = ("prometheus", "promtool", "libc6", "libgcc-s1", "gcc-12-base", "libjs-", "fonts-", "javascript-common")


def needed(packages: Iterable[Package]) -> list[Package]:
    """Return what the programs need of what apt would install."""
    return [package for package in packages if package.name.startswith(RUNTIME)]


def monitoring_tag(resolution: Resolution) -> str:
    """Return the tag of the tree made of these packages."""
    wanted = resolution.wanted
    return tag_of({"format": FORMAT, "suite": wanted.suite, "arch": wanted.arch, "versions": resolution.versions})


def _loader(tree: Path) -> Path:
    found = next((path for pattern in LOADERS for path in sorted(tree.glob(pattern))), None)
    if found is None or not (tree / PROGRAM).is_file():
        raise RoostError(
            f"{tree} holds no Prometheus.", fix="Check monitoring_packages, then run `roost images build`."
        )
    return found


def monitoring_command(tree: Path, program: str = "prometheus") -> list[str]:
    """Return the command that runs a program of the tree without a container, by the tree's own loader.

    Raises:
        RoostError: the folder is there but holds no Prometheus.
    """
    loader = _loader(tree) if tree.exists() else tree / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = ":".join(str(path.parent) for path in sorted(tree.glob("usr/lib/*/libc.so.6"))) or f"{tree}/usr/lib"
    return [str(loader), "--argv0", program, "--library-path", libraries, str(tree / "usr/bin" / program)]


def build_monitoring(
    resolution: Resolution,
    artifacts_dir: Path,
    debs_dir: Path,
    *,
    apt: Callable[[], AptRoot],
    notify: Callable[[str], None],
) -> Path:
    """Make the tree `<artifacts_dir>/monitoring-<tag>` unless it is there, and return it.

    Raises:
        RoostError: no disk space, a package cannot be fetched, or the result holds no Prometheus.
    """
    tag = monitoring_tag(resolution)
    tree = artifacts_dir / f"{KIND}-{tag}"
    with locked(artifacts_dir, KIND):
        if is_tree(tree):
            return tree
        require_space(artifacts_dir, resolution.size * UNPACKED_PER_DEB_BYTE)
        paths = [cached_deb(debs_dir, p) for p in resolution.packages]
        if not all(is_intact(path, p.sha256) for path, p in zip(paths, resolution.packages, strict=True)):
            apt().fetch(resolution.packages, debs_dir, notify)
        notify(f"Unpacking {len(paths)} Debian packages as monitoring {tag}")
        with publishing(tree) as partial:
            unpack_debs(paths, partial)
            _loader(partial)
            describe(partial, kind=KIND, tag=tag, suite=resolution.wanted.suite, packages=resolution.versions)
    return tree
