"""Files: atomic writes and content hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(root: Path, names: Iterable[str]) -> str:
    """Return one SHA-256 over the named files and folders below `root`: paths, executable bits and contents.

    Byte code and caches do not count. A name that does not exist raises FileNotFoundError.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        top = root / name
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        if not files and not top.is_dir():
            raise FileNotFoundError(top)
        for path in files:
            if "__pycache__" in path.parts:
                continue
            mode = "x" if os.access(path, os.X_OK) else "-"
            digest.update(f"{path.relative_to(root)}\0{mode}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def write_all(handle: int, data: bytes) -> None:
    """Write all of some bytes to a descriptor: a disk that fills up takes a part first, and says so only then."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644, owner: int | None = None) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part of it.

    `owner` is the number of the user whose it is from the first moment on; else it is the caller's. When the call
    returns the new content and its name are on the disk.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), owner, -1)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, so that a rename in it outlasts a power failure."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
