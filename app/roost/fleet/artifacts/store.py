"""Folders and files that are whole or not there: published by rename, checked by SHA-256, made under a lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic
from roost.ops.run import run

TAG_DIGITS = 12
DESCRIPTION = "roost.json"
PARTIAL = ".partial-"


def tag_of(inputs: object) -> str:
    """Return the tag of an artifact: 12 hex digits of a hash over all its inputs (anything JSON can hold)."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:TAG_DIGITS]


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock `name` in `folder`: others who share the folder wait, and then find the work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".lock-{name}").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def remove_stale(folder: Path, kind: str) -> None:
    """Remove what killed processes left of a kind of artifact, whatever its tag. Callers hold the kind's lock."""
    for stale in folder.glob(f"{PARTIAL}{kind}-*"):
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


@contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """Yield an empty sibling of `folder` to fill; it takes the name `folder` when the context ends well.

    On an error, Ctrl-C included, the sibling is removed; what a killed process left is removed at the next start.
    Callers hold the lock of this kind of artifact: what stands before the tag in its name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{PARTIAL}{folder.name}-"
    remove_stale(folder.parent, folder.name.rpartition("-")[0])
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    partial.chmod(0o755)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        run(["sync", "-f", partial])
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def describe(folder: Path, **facts: object) -> None:
    """Write `roost.json`, which says what a folder is; a folder without it is not finished."""
    write_atomic(folder / DESCRIPTION, json.dumps(facts, indent=1, sort_keys=True, default=str) + "\n")


def is_tree(folder: Path) -> bool:
    """Say whether an artifact tree is there and finished."""
    return (folder / DESCRIPTION).is_file()


@dataclass(frozen=True, slots=True)
class Checked:
    """A large file with its SHA-256 beside it, in `<file>.sha256`; used only when they agree."""

    path: Path

    @property
    def sidecar(self) -> Path:
        """Where the hash stands."""
        return self.path.with_name(f"{self.path.name}.sha256")

    def exists(self) -> bool:
        """Say whether file and hash are there; the content is not read."""
        return self.path.is_file() and self.sidecar.is_file()

    def is_intact(self) -> bool:
        """Read the file and say whether its content is what was written."""
        return self.exists() and sha256_file(self.path) == self.sidecar.read_text().split()[0]

    def remove(self) -> None:
        """Forget the file."""
        self.sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a temporary path to write; file and hash appear together when the context ends well."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for stale in self.path.parent.glob(f"{PARTIAL}{self.path.name}-*"):
            stale.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f"{PARTIAL}{self.path.name}-")
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(0o644)
            digest = sha256_file(partial)
            self.sidecar.unlink(missing_ok=True)
            partial.replace(self.path)
            write_atomic(self.sidecar, f"{digest}  {self.path.name}\n")
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def require_space(folder: Path, wanted: int, *, reserve: int = 50 << 20) -> None:
    """Raise RoostError when the file system of `folder` has less than `wanted` bytes and a small reserve free."""
    where = folder
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if wanted and free < wanted + reserve:
        raise RoostError(
            f"{where} has {free / 1e6:.0f} MB free; {(wanted + reserve) / 1e6:.0f} MB are needed.",
            fix="Free disk space there, or move the folder to a larger disk.",
        )
