"""The agent tree: its Python packages and a copy of our own package, in one folder for one Python version."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from roost.fleet.artifacts import wheels
from roost.fleet.artifacts.store import describe, is_tree, locked, publishing, require_space, tag_of
from roost.fleet.artifacts.wheels import Target
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, sha256_tree
from roost.ops.run import run

FORMAT = 1  # raise it when the way of making the tree changes
REQUIREMENTS = Path("requirements/agent.txt")
SITE = "site-packages"
APP = "app"
SPACE = 120 << 20


def agent_tag(release: Path, target: Target, more: object = None) -> str:
    """Return the tag of the agent made from a release for a Python; `more` is what an image adds to the inputs.

    Raises:
        RoostError: the folder is not a release of Roost.
    """
    try:
        source = sha256_tree(release / APP, ["roost"])
        locked_versions = sha256_file(release / REQUIREMENTS)
    except FileNotFoundError as error:
        raise RoostError(
            f"{release} is not a release of Roost ({error} is missing).", fix="Run ./bootstrap.sh again."
        ) from error
    return tag_of(
        {"format": FORMAT, "source": source, "requirements": locked_versions, "target": asdict(target), "more": more}
    )


def fill_agent(
    folder: Path,
    release: Path,
    target: Target,
    wheels_dir: Path,
    *,
    ca: Path | None,
    notify: Callable[[str], None],
    offline: Path | None = None,
) -> None:
    """Put the agent's packages and code into a folder: `site-packages/` and `app/roost/`."""
    wheels.install(release / REQUIREMENTS, target, wheels_dir, folder / SITE, ca=ca, notify=notify, more=offline)
    copy_code(release, folder)


def copy_code(release: Path, folder: Path) -> None:
    """Put our own package into a folder, as `app/roost/`; all may read what is in the folder then."""
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(release / APP / "roost", folder / APP / "roost", ignore=skipped)
    # Whoever unpacked the release, and with whatever umask: who runs it must be able to read it.
    run(["chmod", "-R", "u=rwX,go=rX", folder])


def build_code(release: Path, artifacts_dir: Path, *, notify: Callable[[str], None]) -> Path:
    """Make the tree `<artifacts_dir>/code-<tag>` unless it is there, and return it: our own package, for any Python."""
    tag = tag_of({"format": FORMAT, "source": sha256_tree(release / APP, ["roost"])})
    tree = artifacts_dir / f"code-{tag}"
    with locked(artifacts_dir, "code"):
        if not is_tree(tree):
            notify(f"Copying code {tag}")
            with publishing(tree) as partial:
                copy_code(release, partial)
                describe(partial, kind="code", tag=tag)
    return tree


def agent_path(tree: Path) -> str:
    """Return the PYTHONPATH that runs the agent from its tree."""
    return f"{tree / APP}:{tree / SITE}"


def build_agent(
    release: Path,
    target: Target,
    artifacts_dir: Path,
    wheels_dir: Path,
    *,
    ca: Path | None,
    notify: Callable[[str], None],
    offline: Path | None = None,
) -> Path:
    """Make the agent tree `<artifacts_dir>/agent-<tag>` unless it is there, byte-compiled, and return it.

    Raises:
        RoostError: no disk space, or wheels are missing or wrong and cannot be fetched.
    """
    tag = agent_tag(release, target)
    tree = artifacts_dir / f"agent-{tag}"
    with locked(artifacts_dir, "agent"):
        if is_tree(tree):
            return tree
        require_space(artifacts_dir, SPACE)
        notify(f"Putting agent {tag} together")
        with publishing(tree) as partial:
            fill_agent(partial, release, target, wheels_dir, ca=ca, notify=notify, offline=offline)
            compile_tree(partial, target)
            describe(partial, kind="agent", tag=tag, python=target.python)
    return tree


def compile_tree(tree: Path, target: Target) -> None:
    """Byte-compile a tree with a Python of the target's version, if this machine has one.

    The byte code is checked against the sources' hash never: the tree does not change once it has its name.
    """
    python = sys.executable if running_python() == target.python else shutil.which(f"python{target.python}")
    if python is None:
        return
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    run([python, "-m", "compileall", *options, "-s", tree, tree])


def running_python() -> str:
    """Return the minor version that runs this, e.g. `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def description(tree: Path) -> dict[str, object]:
    """Return what `roost.json` of a tree says."""
    content = json.loads((tree / "roost.json").read_text())
    return content if isinstance(content, dict) else {}
