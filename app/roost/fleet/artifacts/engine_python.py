"""The tree of the engine `llama-cpp-python`: its Python packages and our server for it, for one Python version."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from roost.fleet.artifacts import wheels
from roost.fleet.artifacts.agent import APP, SITE, compile_tree
from roost.fleet.artifacts.llama_wheel import PROJECT, REQUIREMENTS, ensure_wheel, recipe_of
from roost.fleet.artifacts.store import describe, is_tree, locked, publishing, require_space, tag_of
from roost.fleet.artifacts.wheels import Target
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file
from roost.ops.offline import WHEELS, OfflineBundle
from roost.ops.run import run

FORMAT = 1  # raise it when the way of making the tree changes
FOLDER = "engine-python"
SPACE = 300 << 20
MODULE = "roost.engines.llama_cpp_python_server"
# Of our own code only what the server needs: a change elsewhere must not restart model servers.
CODE = ("roost/__init__.py", "roost/engines/__init__.py", "roost/engines/llama_cpp_python_server.py")
TWICE = ("lib", "include", "bin")  # what the build installs beside the package once more


def engine_python_tag(release: Path, target: Target, level: str) -> str:
    """Return the tag of the tree made from a release for a Python and a level of processors.

    Raises:
        RoostError: the folder is not a release of Roost.
    """
    recipe = recipe_of(release, target, level)
    try:
        code = {name: sha256_file(release / APP / name) for name in CODE}
        locked_versions = sha256_file(release / REQUIREMENTS)
    except FileNotFoundError as error:
        raise RoostError(
            f"{release} is not a release of Roost ({error.filename} is missing).", fix="Run ./bootstrap.sh again."
        ) from error
    inputs = {"format": FORMAT, "code": code, "requirements": locked_versions, "wheel": recipe.key}
    return tag_of({**inputs, "target": asdict(target)})


def engine_python_command(python: Path, tree: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a model from the tree, and the environment it needs."""
    environment = {"PYTHONPATH": f"{tree / APP}:{tree / SITE}", "PYTHONUNBUFFERED": "1"}
    return [str(python), "-m", MODULE], environment


@contextmanager
def other_requirements(release: Path) -> Iterator[Path]:
    """Yield a locked file of all packages that need no compiler; it is gone afterwards."""
    _, others = wheels.divided((release / REQUIREMENTS).read_text(), PROJECT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / REQUIREMENTS.name
        path.write_text(others)
        yield path


def build_engine_python(
    release: Path,
    target: Target,
    level: str,
    artifacts_dir: Path,
    wheels_dir: Path,
    *,
    ca: Path | None,
    notify: Callable[[str], None],
    bundle: OfflineBundle | None = None,
) -> Path:
    """Make the tree `<artifacts_dir>/engine-python-<tag>` unless it is there, byte-compiled, and return it.

    Raises:
        RoostError: no disk space or compiler, or something is missing and cannot be fetched or compiled.
    """
    tag = engine_python_tag(release, target, level)
    tree = artifacts_dir / f"{FOLDER}-{tag}"
    with locked(artifacts_dir, FOLDER):
        if is_tree(tree):
            return tree
        require_space(artifacts_dir, SPACE)
        wheel = ensure_wheel(recipe_of(release, target, level), wheels_dir, ca=ca, notify=notify, bundle=bundle)
        notify(f"Putting engine {tag} together")
        offline = bundle.directory(WHEELS) if bundle is not None else None
        with publishing(tree) as partial:
            site = partial / SITE
            with other_requirements(release) as others:
                wheels.install(others, target, wheels_dir, site, ca=ca, notify=notify, more=offline)
            _install_wheel(wheel, target, site)
            for name in CODE:
                (partial / APP / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(release / APP / name, partial / APP / name)
            run(["chmod", "-R", "u=rwX,go=rX", partial])
            compile_tree(partial, target)
            describe(partial, kind=FOLDER, tag=tag, python=target.python, level=level)
    return tree


def _install_wheel(wheel: Path, target: Target, site: Path) -> None:
    words: list[str | Path] = [*wheels.pip(), "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    words += ["--only-binary", ":all:", *target.flags(), "--target", site, wheel]
    run(words, env=wheels.pip_environment(None))
    for name in TWICE:
        shutil.rmtree(site / name, ignore_errors=True)
