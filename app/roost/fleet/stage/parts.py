"""The parts of a staged host: plain data, paths as the booted image will see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class FolderPart:
    """A folder with its mode, in octal digits, and its owner's number."""

    path: str
    mode: str = "755"
    uid: int = 0


@dataclass(frozen=True)
class FilePart:
    """A file whose content is known. `keep`: the operator may have changed it, so one that is there stays."""

    path: str
    content: str | bytes = field(repr=False)
    mode: str = "644"
    uid: int = 0
    keep: bool = False


@dataclass(frozen=True)
class CopyPart:
    """A large file, or a folder with all that is in it, copied from this machine."""

    path: str
    source: Path


@dataclass(frozen=True)
class LinkPart:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True)
class AbsentPart:
    """What is not wished for and an earlier staging may have put there: a file, or a folder with all that is in it."""

    path: str


Part = FolderPart | FilePart | CopyPart | LinkPart | AbsentPart


def under(root: Path, path: str) -> Path:
    """Return where a part's path lies below the root folder."""
    return root.joinpath(*PurePosixPath(path).parts[1:])
