"""A program for hosts as one file: a zipapp (PEP 441) that runs with Python 3.9+ alone, on Linux and FreeBSD.

The same sources give the same bytes: members are sorted, not compressed, and carry one date.
"""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from pathlib import Path

from roost.ops.errors import RoostError

COLLECTOR = "roost.hosts.report"
PACKAGE = Path(__file__).parents[1]  # app/roost
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = "import sys\n\nfrom {program} import main\n\nsys.exit(main())\n"
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows
OLDEST_PYTHON = (3, 9)


def pack(package: Path = PACKAGE, program: str = COLLECTOR) -> bytes:
    """Return the zipapp's content; `program` is the module whose `main` it runs.

    Raises:
        RoostError: a module needs more than the standard library, or a newer Python's syntax.
    """
    members = {name: path.read_text() for name, path in _members(package, program).items()}
    files = {"__main__.py": MAIN.format(program=program), **members}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # Unix, whatever packs it
            archive.writestr(entry, files[name])
    return SHEBANG + buffer.getvalue()


def _members(package: Path, program: str) -> dict[str, Path]:
    """Return name in the archive -> source, of the program and all that it imports of ours."""
    found: dict[str, Path] = {}
    left = [program]
    while left:
        module = left.pop()
        path = _source(package, module)
        name = str(path.relative_to(package.parent))
        if name in found:
            continue
        found[name] = path
        left += [parent for parent in [module.rpartition(".")[0]] if parent]
        left += _imports(package, path)
    return found


def _imports(package: Path, path: Path) -> list[str]:
    """Return the modules of ours that a source imports."""
    try:
        tree = ast.parse(path.read_text(), str(path), feature_version=OLDEST_PYTHON)
    except SyntaxError as error:
        raise RoostError(f"{path} is not for Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}: {error}.") from None
    ours: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name for name in below if _is_module(package, name)] or [node.module or ""]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top == package.name:
                ours.append(name)
            elif top not in sys.stdlib_module_names:
                raise RoostError(f"{path} imports {name}: the collector has the standard library only.")
    return ours


def _is_module(package: Path, name: str) -> bool:
    return name.partition(".")[0] == package.name and _path(package, name).exists()


def _path(package: Path, module: str) -> Path:
    place = package.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _source(package: Path, module: str) -> Path:
    path = _path(package, module)
    if not path.is_file():
        raise RoostError(f"The collector's module {module} is missing: {path}.", fix="Install the release again.")
    return path
