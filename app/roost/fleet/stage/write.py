"""Putting parts into a root folder, all or nothing as far as missing sources go; and looking whether they are there."""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from roost.fleet.stage.parts import AbsentPart, CopyPart, FilePart, FolderPart, LinkPart, Part, under
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

RESERVE_BYTES = 64 << 20
SAME_GROUP = -1  # for chown: that of whoever stages, which is root's


def missing_sources(parts: Sequence[Part]) -> list[str]:
    """Return what should be copied and is not on this machine."""
    return [str(p.source) for p in parts if isinstance(p, CopyPart) and not p.source.exists()]


def changes(root: Path, parts: Sequence[Part]) -> list[str]:
    """Return one line a part that is not in the root folder as it should be."""
    return [line for part in parts if (line := _change(root, part))]


def put(root: Path, parts: Sequence[Part], notify: Callable[[str], None]) -> list[str]:
    """Bring all parts into the root folder; return one line a change made.

    Raises:
        RoostError: a source is missing, something else lies in a part's place, or the disk has no room; then nothing
            was changed, or what was changed is named when it is run again.
    """
    if gone := missing_sources(parts):
        raise RoostError(f"Missing: {', '.join(gone)}.", fix="Run ./bootstrap.sh --run-local here, then stage again.")
    for part in parts:
        _refuse_foreign(root, part)
    _need_room(root, parts)
    done = []
    for part in parts:
        line = _change(root, part)
        if not line:
            continue
        if isinstance(part, CopyPart):
            notify(f"Copying {part.path}")
        try:
            _put(root, part)
        except OSError as error:
            raise RoostError(
                f"{part.path} could not be written: {error.strerror}.", fix="Make room, then run it again: it goes on."
            ) from error
        done.append(line)
    return done


def _put(root: Path, part: Part) -> None:
    path = under(root, part.path)
    if isinstance(part, FolderPart):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, part.uid, SAME_GROUP)
        path.chmod(int(part.mode, 8))
        return
    if isinstance(part, AbsentPart):
        _remove(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(part, LinkPart):
        path.unlink(missing_ok=True)
        path.symlink_to(part.target)
    elif isinstance(part, FilePart):
        write_atomic(path, part.content, mode=int(part.mode, 8))
        os.chown(path, part.uid, SAME_GROUP)
    else:
        _copy(part.source, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, path: Path) -> None:
    """Copy beside the place and move it there, so that a copy that was interrupted is never taken for a whole one."""
    partial = path.with_name(f".{path.name}.partial")
    for old in (partial, path):
        _remove(old)
    if source.is_dir():
        shutil.copytree(source, partial, symlinks=True)
    else:
        shutil.copyfile(source, partial)
        partial.chmod(0o444)
    partial.rename(path)


def _change(root: Path, part: Part) -> str:
    """Return what would be done for a part, or nothing."""
    path = under(root, part.path)
    there = os.path.lexists(path)
    if isinstance(part, LinkPart):
        fits = there and path.is_symlink() and str(path.readlink()) == part.target
        return "" if fits else f"link {part.path}"
    if isinstance(part, FolderPart):
        fits = there and _is(path, part.mode, part.uid)
        return "" if fits else f"folder {part.path} {part.mode}"
    if isinstance(part, FilePart):
        content = part.content.encode() if isinstance(part.content, str) else part.content
        fits = there and (part.keep or (path.read_bytes() == content and _is(path, part.mode, part.uid)))
        return "" if fits else f"file {part.path} {part.mode}"
    if isinstance(part, AbsentPart):
        return f"remove {part.path}" if there else ""
    return "" if there and _same(part.source, path) else f"copy {part.path}"


def _is(path: Path, mode: str, uid: int) -> bool:
    state = path.stat()
    return (stat.S_IMODE(state.st_mode), state.st_uid) == (int(mode, 8), uid)


def _same(source: Path, path: Path) -> bool:
    """Say whether a copy is what it was made of: a file by size and time or content, a tree by its description."""
    if source.is_dir():
        mark = "roost.json"  # names the tree's tag, which follows from all that is in it
        return path.is_dir() and filecmp.cmp(source / mark, path / mark, shallow=False)
    return path.is_file() and filecmp.cmp(source, path, shallow=False)


def _refuse_foreign(root: Path, part: Part) -> None:
    """Raise where something of another kind lies in a part's place, or a link leads out of the root folder."""
    path = under(root, part.path)
    inside = root.resolve()
    nearest = path.parent
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.resolve().is_relative_to(inside):
        raise RoostError(
            f"{part.path} would be written outside of {root}: {nearest} is a link to {nearest.resolve()}.",
            fix="Make the link relative, or stage from inside the root.",
        )
    wants_folder = isinstance(part, FolderPart) or (isinstance(part, CopyPart) and part.source.is_dir())
    if (
        os.path.lexists(path)
        and not isinstance(part, LinkPart | AbsentPart)
        and (path.is_symlink() or path.is_dir() != wants_folder)
    ):
        raise RoostError(f"{path} is something else.", fix=f"Move {path} out of the way.")


def _need_room(root: Path, parts: Sequence[Part]) -> None:
    needed = sum(_size(p.source) for p in parts if isinstance(p, CopyPart) and _change(root, p))
    free = shutil.disk_usage(root).free
    if needed and free < needed + RESERVE_BYTES:
        raise RoostError(
            f"{root} has room for {free >> 20} MiB, and {(needed + RESERVE_BYTES) >> 20} MiB are needed.",
            fix="Make the image larger, or choose a smaller model.",
        )


def _size(source: Path) -> int:
    if source.is_file():
        return source.stat().st_size
    return sum(p.stat().st_size for p in source.rglob("*") if p.is_file() and not p.is_symlink())
