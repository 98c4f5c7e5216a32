"""Which model files nobody needs: those that no slot serves, with their cached copies, and what killed runs left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from roost.models.fetch import SCRATCH_PREFIX, Places
from roost.models.schema import FOLDER_DIGITS, ModelFile
from roost.models.store import stamp_path

FOLDER = re.compile(rf"[0-9a-f]{{{FOLDER_DIGITS}}}")
CACHED = re.compile(r"[0-9a-f]{64}")
PARTIAL = re.compile(r"\.([0-9a-f]{64})\.part")


@dataclass(frozen=True)
class Unused:
    """One file (or a killed run's folder) that may go; `frees` is what the disk gains, in bytes."""

    path: Path
    frees: int
    why: str


def find_unused(places: Places, needed: Iterable[ModelFile], known: Mapping[str, ModelFile]) -> list[Unused]:
    """Return what may go. `needed` are the files that slots serve, `known` those of the catalogue by model.

    A download that was begun for a model of the catalogue stays: it can go on. Names that are not ours are left alone.
    """
    keep = {file.sha256 for file in needed}
    names = {file.relative_path: name for name, file in known.items()}
    hashes = {file.sha256 for file in known.values()}
    kept_paths = {file.relative_path for file in needed}
    found: list[tuple[Path, str]] = []
    for folder in _entries(places.models_dir, FOLDER):
        for path in sorted(folder.iterdir()):
            relative = f"{folder.name}/{path.name}"
            if path.name.startswith(SCRATCH_PREFIX):
                found.append((path, "left by a killed run"))
            elif not path.name.startswith(".") and relative not in kept_paths:
                found.append((path, f"no slot serves {names.get(relative, 'it; not in the catalogue')}"))
    cache = places.cache_dir / "models"
    found += [(path, "cached copy, no slot serves it") for path in _entries(cache, CACHED) if path.name not in keep]
    for path in _entries(cache, PARTIAL):
        if path.name[1:65] not in hashes:
            found.append((path, "begun download, not in the catalogue"))
    return _with_sizes(found)


def remove(unused: Iterable[Unused]) -> int:
    """Remove files, their stamps and folders that become empty; return the bytes freed. Hold the node's lock."""
    freed = 0
    for item in unused:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()
            stamp_path(item.path).unlink(missing_ok=True)
        if FOLDER.fullmatch(item.path.parent.name) and not any(item.path.parent.iterdir()):
            item.path.parent.rmdir()
        freed += item.frees
    return freed


def _entries(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if pattern.fullmatch(p.name)) if folder.is_dir() else []


def _with_sizes(found: Iterable[tuple[Path, str]]) -> list[Unused]:
    """Count each file once: a cached copy is mostly a second name of the same file."""
    seen: set[tuple[int, int]] = set()
    rows = []
    for path, why in found:
        size = 0
        for file in path.rglob("*") if path.is_dir() else (path,):
            info = file.lstat()
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                size += info.st_size
        rows.append(Unused(path, size, why))
    return rows
