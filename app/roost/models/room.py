"""Whether a disk has room for a model, before a byte of it is written."""

from __future__ import annotations

from pathlib import Path

from roost.models.schema import ModelFile
from roost.models.source_types import HubSource, Source, UrlSource
from roost.models.sources import needed_bytes
from roost.models.store import free_bytes
from roost.ops.errors import RoostError

MIB = 1 << 20
SPARE_BYTES = 64 * MIB  # left free on a disk that a model is written to


def need_room(folder: Path, size: int, name: str) -> None:
    """See that the disk of `folder` has `size` bytes left, and some to spare.

    Raises:
        RoostError: it has not.
    """
    free = free_bytes(folder)
    if free < size + SPARE_BYTES:
        need, have = (size + SPARE_BYTES + MIB - 1) // MIB, free // MIB
        raise RoostError(
            f"The model {name} needs {need} MiB in {folder}, {have} MiB are free.",
            fix=f"Free {need - have} MiB on that disk.",
        )


def left_bytes(file: ModelFile, partial: Path, models_dir: Path) -> int:
    """Return the bytes still to be written where the models lie; a download begun on the same disk counts."""
    return file.bytes - _begun(file, partial) if _same_disk(partial.parent, models_dir) else file.bytes


def room_for(source: Source, file: ModelFile, scratch: Path, partial: Path, name: str) -> None:
    """See that there is room for what a source writes: a download goes to `partial`, all else to `scratch`.

    Raises:
        RoostError: there is not.
    """
    if not isinstance(source, UrlSource | HubSource):
        need_room(scratch, needed_bytes(source, file), name)
        return
    need_room(partial.parent, file.bytes - _begun(file, partial), name)
    if not _same_disk(partial.parent, scratch):
        need_room(scratch, file.bytes, name)


def _begun(file: ModelFile, partial: Path) -> int:
    return min(partial.stat().st_size, file.bytes) if partial.exists() else 0


def _same_disk(one: Path, other: Path) -> bool:
    """Say whether two folders, or their nearest parents, lie on one file system."""
    numbers = set()
    for folder in (one, other):
        there = folder
        while not there.exists():
            there = there.parent
        numbers.add(there.stat().st_dev)
    return len(numbers) == 1
