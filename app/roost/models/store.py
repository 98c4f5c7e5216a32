"""Where model files lie on a node, and whether what lies there is the right file.

`<models_dir>/<16 hex digits of sha256>/<name>`, read-only, with a stamp beside it: size, mtime and hash at the last
time the content was hashed. While size and mtime agree with the stamp, a run need not hash again.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from roost.models.schema import ModelFile
from roost.ops.files import sha256_file, write_atomic

FILE_MODE = 0o444


class State(Enum):
    """What is known of a model's file on this node."""

    VERIFIED = "verified"  # the stamp says so, or the content was hashed just now
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_CONTENT = "wrong content"


@dataclass(frozen=True)
class Stamp:
    """A file's size in bytes and mtime in nanoseconds when its SHA-256 was computed."""

    size: int
    mtime_ns: int
    sha256: str


def model_path(models_dir: Path, file: ModelFile) -> Path:
    """Return where the file belongs."""
    return models_dir / file.relative_path


def stamp_path(path: Path) -> Path:
    """Return the stamp's place beside a model file."""
    return path.with_name(f".{path.name}.stamp")


def read_stamp(path: Path) -> Stamp | None:
    """Read the stamp of the model file at `path`; None when there is none that can be read."""
    try:
        return Stamp(**json.loads(stamp_path(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def has_fitting_stamp(path: Path) -> bool:
    """Say whether the file is unchanged, by size and mtime, since it was last hashed."""
    stamp, info = read_stamp(path), path.stat()
    return stamp is not None and (stamp.size, stamp.mtime_ns) == (info.st_size, info.st_mtime_ns)


def forget_stamp(path: Path) -> None:
    """Make the next run hash the file again."""
    stamp_path(path).unlink(missing_ok=True)


def write_stamp(path: Path, sha256: str) -> None:
    """Record that the file at `path` was hashed just now."""
    info = path.stat()
    write_atomic(stamp_path(path), json.dumps(asdict(Stamp(info.st_size, info.st_mtime_ns, sha256))) + "\n")


def state_of(models_dir: Path, file: ModelFile, *, rehash: bool = False) -> State:
    """Say what lies where the file belongs; reads the content only without a fitting stamp, or with `rehash`.

    Writes nothing.
    """
    path = model_path(models_dir, file)
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return State.MISSING
    if info.st_size != file.bytes:
        return State.WRONG_SIZE
    stamp = Stamp(info.st_size, info.st_mtime_ns, file.sha256)
    if not rehash and read_stamp(path) == stamp:
        return State.VERIFIED
    return State.VERIFIED if sha256_file(path) == file.sha256 else State.WRONG_CONTENT


def is_read_only(path: Path) -> bool:
    """Say whether the file has the mode that model files have."""
    return stat.S_IMODE(path.stat().st_mode) == FILE_MODE


def free_bytes(folder: Path) -> int:
    """Return the bytes that may still be written on the file system of `folder`, or of its nearest parent."""
    there = folder
    while not there.exists():
        there = there.parent
    info = os.statvfs(there)
    return info.f_bavail * info.f_frsize
