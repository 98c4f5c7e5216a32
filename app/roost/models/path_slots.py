"""Slots that name a file on the host: each becomes an entry like those of `models_custom`, made from the file's header.

So estimate, placement, fetching (into the models folder, verified) and jobs treat it as any other model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from roost.models.add import UNKNOWN, Reach, Wanted, look_at
from roost.models.catalogue import Catalogue, parse_custom
from roost.models.custom import Added, name_of
from roost.models.custom_file import listed_entry
from roost.models.gguf_read import header_of_file
from roost.models.model_slots import ModelSlot
from roost.models.source_types import PathSource
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic

PREFIX = "file-"  # so that no file takes the place of a model of the catalogue
LONGEST_NAME = 63  # as schema.MODEL_NAME allows
MEMO_NAME = ".path-slots.json"


def entries_of_paths(
    slots: Sequence[ModelSlot], custom: Mapping[str, object], models_dir: Path, *, dry_run: bool = False
) -> dict[str, object]:
    """Return `custom` with an entry for each file that a slot names and none of it holds.

    A file is hashed once: while its size and time stay, the hash is remembered in the models folder; with `dry_run`
    nothing is written.

    Raises:
        RoostError: a file is missing, cannot be read, or holds no model that can be served.
    """
    found = dict(custom)
    memo = HashMemo(models_dir, dry_run=dry_run)
    for path in dict.fromkeys(slot.path for slot in slots if slot.path):
        if any(_is_from(entry, path) for entry in found.values()):
            continue
        added = _added(Path(path), memo.sha256, models_dir, found)
        found[added.name] = listed_entry(added.entry)
    return found


def with_paths(catalogue: Catalogue, paths: Iterable[str], models_dir: Path) -> Catalogue:
    """Return the catalogue with an entry for each file that it does not know yet, to plan with: nothing is hashed.

    Raises:
        RoostError: a file is missing, cannot be read, or holds no model that can be served.
    """
    known = {str(s.path) for m in catalogue.all() for s in m.sources if isinstance(s, PathSource)}
    memo = HashMemo(models_dir, dry_run=True)
    found: dict[str, object] = dict.fromkeys(catalogue.entries)
    added: dict[str, object] = {}
    for path in dict.fromkeys(path for path in paths if path not in known):
        one = _added(Path(path), memo.remembered, models_dir, {**found, **added})
        added[one.name] = listed_entry(one.entry)
    if not added:
        return catalogue
    return catalogue.model_copy(update={"entries": {**catalogue.entries, **parse_custom(added)}})


def _added(file: Path, sha256: Callable[[Path], str], models_dir: Path, taken: Collection[str]) -> Added:
    """Look at a file, its header first: what is no model is not hashed."""
    try:
        if not file.is_file():
            raise RoostError(f"A slot names the file {file}, which is not there.", fix="Correct path in model_slots.")
        _see_header(file)
        digest = sha256(file)
    except OSError as error:
        raise RoostError(
            f"A slot names the file {file}, which cannot be read: {error.strerror}.",
            fix="Let this user read it, or correct path in model_slots.",
        ) from None
    name = f"{PREFIX}{name_of(file.stem)}"[:LONGEST_NAME].rstrip("-._")
    if name in taken:  # another file of this name in another folder
        mark = f"-{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        name = f"{name[: LONGEST_NAME - len(mark)]}{mark}"
    return look_at(Wanted(str(file), name, None, digest), Reach(models_dir))


def _is_from(entry: object, path: str) -> bool:
    quantisations = entry.get("quantisations") if isinstance(entry, Mapping) else None
    items = quantisations.values() if isinstance(quantisations, Mapping) else ()
    sources = [s for item in items if isinstance(item, Mapping) for s in item.get("sources") or ()]
    return any(isinstance(source, Mapping) and source.get("path") == path for source in sources)


def _see_header(file: Path) -> None:
    try:
        header_of_file(file)
    except RoostError as error:
        said = f"A slot names the file {file}, which no server could use: {error.message}"
        raise RoostError(said, fix=error.fix) from None


class HashMemo:
    """Hashes by path, as long as a file's size and modification time stay; kept in the models folder."""

    def __init__(self, models_dir: Path, *, dry_run: bool) -> None:
        """With `dry_run` nothing is written."""
        self.where, self.dry_run = models_dir / MEMO_NAME, dry_run
        try:
            self.known: dict[str, object] = dict(json.loads(self.where.read_text()))
        except (OSError, ValueError):
            self.known = {}

    def remembered(self, path: Path) -> str:
        """Return the hash that is remembered, else one that no file has."""
        info = path.stat()
        match self.known.get(str(path)):
            case [size, mtime_ns, str(sha256)] if [size, mtime_ns] == [info.st_size, info.st_mtime_ns]:
                return sha256
        return UNKNOWN

    def sha256(self, path: Path) -> str:
        """Return the hash of a file, computed only where it is not remembered."""
        known = self.remembered(path)
        if known != UNKNOWN:
            return known
        info = path.stat()
        sha256 = sha256_file(path)
        self.known[str(path)] = [info.st_size, info.st_mtime_ns, sha256]
        if not self.dry_run and self.where.parent.is_dir():
            write_atomic(self.where, json.dumps(self.known) + "\n")
        return sha256
