"""A folder that Debian packages were unpacked into as one root: the engine's, Prometheus'. Kept by its versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from roost.fleet.artifacts.apt import AptRoot, cached_deb, is_intact
from roost.fleet.artifacts.resolution import Resolution
from roost.fleet.artifacts.store import describe, is_tree, locked, publishing, require_space, tag_of
from roost.ops.errors import RoostError
from roost.ops.run import run

FORMAT = 1  # raise it when the way of making such a tree changes
MERGED = ("bin", "sbin", "lib", "lib64")
UNPACKED_PER_DEB_BYTE = 5
UNUSED = (
    *("usr/share/doc-base", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian"),
    *("usr/share/gdb", "usr/share/bash-completion", "var/cache", "usr/lib/systemd"),
)
LOADERS = ("usr/lib64/ld-linux-*.so.*", "usr/lib/ld-linux-*.so.*", "usr/lib/*/ld-linux-*.so.*")


def deb_tree_tag(resolution: Resolution) -> str:
    """Return the tag of the tree made of these packages."""
    wanted = resolution.wanted
    return tag_of({"format": FORMAT, "suite": wanted.suite, "arch": wanted.arch, "versions": resolution.versions})


def loader_of(tree: Path) -> Path | None:
    """Return the tree's own program loader, if it has one."""
    return next((path for pattern in LOADERS for path in sorted(tree.glob(pattern))), None)


def build_deb_tree(
    kind: str,
    resolution: Resolution,
    artifacts_dir: Path,
    debs_dir: Path,
    *,
    check: Callable[[Path], object],
    apt: Callable[[], AptRoot],
    notify: Callable[[str], None],
) -> Path:
    """Make the tree `<artifacts_dir>/<kind>-<tag>` unless it is there, and return it.

    `apt` gives a private apt root; it is asked for only when a .deb is missing in `debs_dir`. `check` raises where the
    result is not what it should be; then there is no tree.

    Raises:
        RoostError: no disk space, a package cannot be fetched, or what `check` raises.
    """
    tag = deb_tree_tag(resolution)
    tree = artifacts_dir / f"{kind}-{tag}"
    with locked(artifacts_dir, kind):
        if is_tree(tree):
            return tree
        require_space(artifacts_dir, resolution.size * UNPACKED_PER_DEB_BYTE)
        paths = [cached_deb(debs_dir, p) for p in resolution.packages]
        if not all(is_intact(path, p.sha256) for path, p in zip(paths, resolution.packages, strict=True)):
            apt().fetch(resolution.packages, debs_dir, notify)
        notify(f"Unpacking {len(paths)} Debian packages as {kind} {tag}")
        with publishing(tree) as partial:
            _unpack(paths, partial)
            check(partial)
            describe(partial, kind=kind, tag=tag, suite=resolution.wanted.suite, packages=resolution.versions)
    return tree


def _unpack(debs: list[Path], root: Path) -> None:
    """Unpack packages into an empty folder as one root, without what only people read."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        run(["dpkg-deb", "--extract", deb, root], fix="Delete the file; it is fetched again.")
    for name in UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("proc", "sys", "dev", "tmp", "models"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name in MERGED:
        if not (root / name).is_symlink():
            raise RoostError(
                f"The packages replaced {name}, so nothing would run from the tree.", fix="Use a newer suite."
            )
