"""What a release is made of: the files and the name that bootstrap.sh gives it (`product_files`, `release_id`)."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.files import sha256_file

PRODUCTS = re.compile(r'^ *products="([^"]+)"$', re.MULTILINE)


def product_files(source: Path) -> list[str]:
    """Return the files that make a release, relative to its folder, in the order of their bytes.

    Raises:
        RoostError: the folder is no release.
    """
    try:
        found = PRODUCTS.search((source / "bootstrap.sh").read_text())
    except OSError:
        found = None
    if found is None:
        raise RoostError(f"{source} is not a whole release of Roost.", fix="Run it from the whole repository.")
    names: list[str] = []
    for product in found[1].split():
        top = source / product
        paths = [top] if top.is_file() else sorted(top.rglob("*"))
        names += [
            str(p.relative_to(source)) for p in paths if p.is_file() and not p.is_symlink() and _counts(p, source)
        ]
    return sorted(names, key=str.encode)


def _counts(path: Path, source: Path) -> bool:
    parts = path.relative_to(source).parts
    return path.suffix != ".pyc" and "__pycache__" not in parts and not any(p.startswith(".") for p in parts)


def release_id(source: Path, names: Sequence[str]) -> str:
    """Return 16 hex digits over names, contents and the right to run of a release's files."""
    digest = hashlib.sha256()
    for name in names:
        path = source / name
        mark = "x " if path.stat().st_mode & 0o111 else ""
        digest.update(f"{mark}{sha256_file(path)}  {name}\n".encode())
    return digest.hexdigest()[:16]


def pack(source: Path, names: Sequence[str], target: Path) -> None:
    """Write a release's files into a tar."""
    with tarfile.open(target, "w:gz", compresslevel=3) as tar:
        for name in names:
            tar.add(source / name, arcname=name, recursive=False)
