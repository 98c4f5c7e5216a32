"""The engine tree: llama.cpp's server and all it needs, from Debian packages, in one folder.

The folder holds its own C library and loader, so it runs on any host with a kernel that is new enough, and as the
content of an image.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts.apt import AptRoot, cached_deb, is_intact
from roost.fleet.artifacts.resolution import Resolution
from roost.fleet.artifacts.store import describe, is_tree, locked, publishing, require_space, tag_of
from roost.ops.errors import RoostError
from roost.ops.run import run

FORMAT = 1  # raise it when the way of making the tree changes
MERGED = ("bin", "sbin", "lib", "lib64")
UNPACKED_PER_DEB_BYTE = 5
UNUSED = (
    *("usr/share/doc-base", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian"),
    *("usr/share/gdb", "usr/share/bash-completion", "var/cache", "usr/lib/systemd"),
)
RPC_WORKER = "ggml-rpc-server"
LOADERS = ("usr/lib64/ld-linux-*.so.*", "usr/lib/ld-linux-*.so.*", "usr/lib/*/ld-linux-*.so.*")


def engine_tag(resolution: Resolution) -> str:
    """Return the tag of the engine tree made of these packages."""
    return tag_of(
        {
            "format": FORMAT,
            "suite": resolution.wanted.suite,
            "arch": resolution.wanted.arch,
            "versions": resolution.versions,
        }
    )


@dataclass(frozen=True, slots=True)
class EngineLayout:
    """Where things lie below an engine tree; absolute paths."""

    server: Path
    loader: Path
    libraries: tuple[Path, ...]
    backends: Path


def layout(tree: Path) -> EngineLayout:
    """Find server, loader, libraries and CPU backends in an engine tree.

    Raises:
        RoostError: the folder holds no engine.
    """
    server = tree / "usr/bin/llama-server"
    loader = next((path for pattern in LOADERS for path in sorted(tree.glob(pattern))), None)
    backends = next(iter(sorted(tree.glob("usr/lib/*/ggml/backends*"))), None)
    if not server.is_file() or loader is None or backends is None:
        raise RoostError(f"{tree} holds no llama-server.", fix="Check engine_packages, then run `roost images build`.")
    libraries = backends.parent.parent
    return EngineLayout(server, loader, (libraries, libraries / "llama"), backends)


def expected_layout(tree: Path) -> EngineLayout:
    """Return where things will lie in a tree that is not made yet, for a check before the first run."""
    triplet = f"{platform.machine()}-linux-gnu"
    libraries = tree / "usr/lib" / triplet
    loader = tree / "usr/lib64" / f"ld-linux-{platform.machine().replace('_', '-')}.so.2"
    server = tree / "usr/bin/llama-server"
    return EngineLayout(server, loader, (libraries, libraries / "llama"), libraries / "ggml/backends0")


def program_path(program: str) -> str:
    """Return where a program of the engine lies below its tree; Debian keeps the RPC worker out of /usr/bin."""
    if program == RPC_WORKER:
        return f"usr/libexec/{platform.machine()}-linux-gnu/llama/bin/{program}"
    return f"usr/bin/{program}"


def engine_command(tree: Path, program: str = "llama-server") -> tuple[list[str], Path]:
    """Return the command that runs a program of the tree without a container, and the folder to run it in.

    The tree's own loader starts it with the tree's libraries; ggml finds its CPU backends in the working folder.

    Raises:
        RoostError: the folder is there but holds no engine.
    """
    found = layout(tree) if tree.exists() else expected_layout(tree)
    libraries = ":".join(str(path) for path in found.libraries)
    argv = [str(found.loader), "--argv0", program, "--library-path", libraries, str(tree / program_path(program))]
    return argv, found.backends


def unpack_debs(debs: list[Path], root: Path) -> None:
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
                f"The packages replaced {name}, so the engine's tree would not run.", fix="Use a newer engine_suite."
            )


def build_engine(
    resolution: Resolution,
    artifacts_dir: Path,
    debs_dir: Path,
    *,
    apt: Callable[[], AptRoot],
    notify: Callable[[str], None],
) -> Path:
    """Make the engine tree `<artifacts_dir>/engine-<tag>` unless it is there, and return it.

    `apt` gives a private apt root; it is asked for only when a .deb is missing in `debs_dir`.

    Raises:
        RoostError: no disk space, a package cannot be fetched, or the result holds no server.
    """
    tag = engine_tag(resolution)
    tree = artifacts_dir / f"engine-{tag}"
    with locked(artifacts_dir, "engine"):
        if is_tree(tree):
            return tree
        require_space(artifacts_dir, resolution.size * UNPACKED_PER_DEB_BYTE)
        paths = [cached_deb(debs_dir, p) for p in resolution.packages]
        if not all(is_intact(path, p.sha256) for path, p in zip(paths, resolution.packages, strict=True)):
            apt().fetch(resolution.packages, debs_dir, notify)
        notify(f"Unpacking {len(paths)} Debian packages as engine {tag}")
        with publishing(tree) as partial:
            unpack_debs(paths, partial)
            layout(partial)
            describe(partial, kind="engine", tag=tag, suite=resolution.wanted.suite, packages=resolution.versions)
    return tree
