"""The monitoring tree: Prometheus and promtool from their Debian package, with the libraries they need, in one folder.

Like the engine's it holds its own C library and loader, so it runs on any host, and as the content of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from roost.fleet.artifacts.apt import AptRoot, Package
from roost.fleet.artifacts.deb_tree import build_deb_tree, loader_of
from roost.fleet.artifacts.resolution import Resolution
from roost.ops.errors import RoostError

KIND = "monitoring"
PROGRAM = "usr/bin/prometheus"
# The package's own scripts make users and start services, and need dpkg, perl and more for it; its programs do not.
RUNTIME = ("prometheus", "promtool", "libc6", "libgcc-s1", "gcc-12-base", "libjs-", "fonts-", "javascript-common")


def needed(packages: Iterable[Package]) -> list[Package]:
    """Return what the programs need of what apt would install."""
    return [package for package in packages if package.name.startswith(RUNTIME)]


def _loader(tree: Path) -> Path:
    found = loader_of(tree)
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
    """Make the monitoring tree unless it is there, and return it; see `build_deb_tree`."""
    return build_deb_tree(KIND, resolution, artifacts_dir, debs_dir, check=_loader, apt=apt, notify=notify)
