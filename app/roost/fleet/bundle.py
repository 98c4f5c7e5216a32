"""Fill the offline folder: file by file, each one whole, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost import __version__
from roost.fleet.artifacts.store import PARTIAL, require_space
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic
from roost.ops.offline import CONTENTS, BundleFile, Contents

PROGRESS = ".bundle-progress.json"
FOLDERS = ("wheels", "nomad", "artifacts", "models", "debs")


@dataclass(frozen=True)
class Item:
    """One file of a bundle: its path in it, about how many bytes, and what writes it to a path."""

    name: str
    bytes: int
    write: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Filled:
    """What a run did; counts of files, bytes of the whole bundle."""

    folder: str
    files: int
    kept: int
    bytes: int


def copy_of(path: Path, name: str) -> Item:
    """Return an item that copies a file."""

    def write(target: Path) -> None:
        shutil.copyfile(path, target)

    return Item(name, path.stat().st_size, write)


def text_of(text: str, name: str) -> Item:
    """Return an item with this text."""

    def write(target: Path) -> None:
        target.write_text(text)

    return Item(name, len(text), write)


def recorded(folder: Path) -> dict[str, BundleFile]:
    """Return what an earlier run finished.

    Raises:
        RoostError: the folder holds something else, which is not ours to change.
    """
    for name in (PROGRESS, CONTENTS):
        try:
            files = json.loads((folder / name).read_text())["files"]
            return {str(key): BundleFile.model_validate(value) for key, value in files.items()}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError):
            return {}
    if folder.is_dir() and any(folder.iterdir()):
        raise RoostError(f"{folder} is not empty and not an offline folder.", fix="Name a new or an empty folder.")
    return {}


def is_kept(folder: Path, name: str, known: dict[str, BundleFile]) -> bool:
    """Say whether an earlier run left this file whole."""
    path, file = folder / name, known.get(name)
    return (
        file is not None and path.is_file() and path.stat().st_size == file.bytes and sha256_file(path) == file.sha256
    )


def fill(
    folder: Path, items: Sequence[Item], *, arch: str, runtime: str, python: list[str], notify: Callable[[str], None]
) -> Filled:
    """Bring a folder to exactly these items; what is there already is checked and kept, `bundle.json` comes last.

    Raises:
        RoostError: the folder is somebody else's, the disk is too small, or an item cannot be written.
    """
    known = recorded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = {item.name: known[item.name] for item in items if is_kept(folder, item.name, known)}
    kept = len(done)
    missing = [item for item in items if item.name not in done]
    require_space(folder, sum(item.bytes for item in missing))
    _note(folder, done)
    if missing:
        # From now on it is not whole: nobody may take it for a bundle.
        (folder / CONTENTS).unlink(missing_ok=True)
    for number, item in enumerate(missing, 1):
        notify(f"[{number}/{len(missing)}] {item.name} ({item.bytes / 1e6:.1f} MB)")
        done[item.name] = _write(folder, item)
        _note(folder, done)
    _remove_others(folder, set(done))
    contents = Contents(roost_version=__version__, arch=arch, runtime=runtime, python=python, files=done)
    write_atomic(folder / CONTENTS, contents.model_dump_json(indent=1) + "\n")
    (folder / PROGRESS).unlink()
    return Filled(str(folder), len(done), kept, sum(file.bytes for file in done.values()))


def _note(folder: Path, done: dict[str, BundleFile]) -> None:
    files = {name: file.model_dump() for name, file in done.items()}
    write_atomic(folder / PROGRESS, json.dumps({"files": files}) + "\n")


def _write(folder: Path, item: Item) -> BundleFile:
    target = folder / item.name
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=PARTIAL)
    os.close(handle)
    partial = Path(name)
    try:
        item.write(partial)
        partial.chmod(0o644)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        file = BundleFile(sha256=sha256_file(partial), bytes=partial.stat().st_size)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RoostError(
            f"{target} could not be written: {error.strerror}.", fix="Correct that and run it again; it goes on here."
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return file


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove files of an older bundle or an interrupted run from the folders a bundle consists of."""
    for name in FOLDERS:
        for path in sorted((folder / name).rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif str(path.relative_to(folder)) not in wanted:
                path.unlink()
