"""The engine tree: llama.cpp's server and all it needs, from Debian packages, in one folder.

The folder holds its own C library and loader, so it runs on any host with a kernel that is new enough, and as the
content of an image.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts.apt import AptRoot
from roost.fleet.artifacts.deb_tree import build_deb_tree, loader_of
from roost.fleet.artifacts.resolution import Resolution
from roost.ops.errors import RoostError

KIND = "engine"
RPC_WORKER = "ggml-rpc-server"


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
    loader = loader_of(tree)
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


def build_engine(
    resolution: Resolution,
    artifacts_dir: Path,
    debs_dir: Path,
    *,
    apt: Callable[[], AptRoot],
    notify: Callable[[str], None],
) -> Path:
    """Make the engine tree unless it is there, and return it; see `build_deb_tree`."""
    return build_deb_tree(KIND, resolution, artifacts_dir, debs_dir, check=layout, apt=apt, notify=notify)
