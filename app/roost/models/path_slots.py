"""Slots that name a file on the host: each becomes an entry like those of `models_custom`, made from the file's header.

So estimate, placement, fetching (into the models folder, verified) and jobs treat it as any other model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from roost.models.add import Reach, Wanted, look_at
from roost.models.custom import name_of
from roost.models.custom_file import listed_entry
from roost.models.model_slots import ModelSlot
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic

PREFIX = "file-"  # so that no file takes the place of a model of the catalogue
MEMO_NAME = ".path-slots.json"


def entries_of_paths(
    slots: Sequence[ModelSlot], custom: Mapping[str, object], models_dir: Path, *, dry_run: bool = False
) -> dict[str, object]:
    """Return `custom` with an entry for each file that a slot names and none of it holds.

    A file is hashed once: while its size and time stay, the hash is remembered in the models folder; with `dry_run`
    nothing is written.

    Raises:
        RoostError: a file is missing or holds no model that can be served.
    """
    found = dict(custom)
    memo = _Memo(models_dir / MEMO_NAME, dry_run=dry_run)
    for path in dict.fromkeys(slot.path for slot in slots if slot.path):
        if any(_is_from(entry, path) for entry in found.values()):
            continue
        file = Path(path)
        if not file.is_file():
            raise RoostError(f"A slot names the file {path}, which is not there.", fix="Correct path in model_slots.")
        name = f"{PREFIX}{name_of(file.stem)}"[:63].rstrip("-._")
        added = look_at(Wanted(path, name, None, memo.sha256(file)), Reach(models_dir))
        found[added.name] = listed_entry(added.entry)
    return found


def _is_from(entry: object, path: str) -> bool:
    quantisations = entry.get("quantisations") if isinstance(entry, Mapping) else None
    items = quantisations.values() if isinstance(quantisations, Mapping) else ()
    sources = [s for item in items if isinstance(item, Mapping) for s in item.get("sources") or ()]
    return any(isinstance(source, Mapping) and source.get("path") == path for source in sources)


class _Memo:
    """Hashes by path, as long as a file's size and modification time stay."""

    def __init__(self, where: Path, *, dry_run: bool) -> None:
        self.where, self.dry_run = where, dry_run
        try:
            self.known: dict[str, object] = dict(json.loads(where.read_text()))
        except (OSError, ValueError):
            self.known = {}

    def sha256(self, path: Path) -> str:
        info = path.stat()
        stamp = [info.st_size, info.st_mtime_ns]
        match self.known.get(str(path)):
            case [size, mtime_ns, str(sha256)] if [size, mtime_ns] == stamp:
                return sha256
        sha256 = sha256_file(path)
        self.known[str(path)] = [*stamp, sha256]
        if not self.dry_run and self.where.parent.is_dir():
            write_atomic(self.where, json.dumps(self.known) + "\n")
        return sha256
