"""Model files that lie on a host without an entry anywhere: found, looked into, and made candidates like any other.

Only headers are read, each once: what was seen stands in a small file in the models folder, by size and time. A file is
hashed when it is chosen (`with_hashes`); until then its entry has a placeholder, which fits no file.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost.models.add import UNKNOWN, Reach, Wanted, look_at
from roost.models.catalogue import Catalogue, parse_custom
from roost.models.choose import Seen, guess_roles
from roost.models.custom import PREFERRED, name_of
from roost.models.custom_file import listed_entry
from roost.models.gc import FOLDER
from roost.models.path_slots import PREFIX, HashMemo
from roost.models.schema import SPLIT, ListedEntry
from roost.models.source_types import PathSource
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

MEMO_NAME = ".found-models.json"
ENDING = ".gguf"
MAX_DEPTH = 3  # folders below the one that is named
MAX_ENTRIES = 20_000  # files and folders looked at: a mistaken `/` must not take a run hours
MAX_FILES = 200


@dataclass(frozen=True)
class Found:
    """What lies there: entries by name as in `models_custom`, and what was passed over, with the reason."""

    entries: Mapping[str, ListedEntry]
    passed_over: Mapping[str, str]

    def beside(self, catalogue: Catalogue) -> Catalogue:
        """Return the catalogue with what was found beside its own."""
        return catalogue.model_copy(update={"entries": {**catalogue.entries, **self.entries}})

    def path_of(self, name: str, quantisation: str) -> Path:
        """Return where a model's file lies."""
        return _path_of(self.entries[name].quantisations[quantisation].sources)


def found_models(
    catalogue: Catalogue, models_dir: Path, folders: Sequence[Path] | None = None, *, dry_run: bool = False
) -> Found:
    """Look for model files in the models folder and in `folders`; None: in those of the last run.

    Left out is what the catalogue has: files of the same name and size, and those that an entry has as its source. With
    `dry_run`, and where the user may not write, nothing is written.
    """
    memo = _Memo(models_dir / MEMO_NAME)
    places = [Path(folder) for folder in memo.folders] if folders is None else list(folders)
    listed = {(file.name, file.bytes) for file in catalogue.known_files().values()}
    downloads = [download for entry in catalogue.entries.values() for download in entry.downloads]
    sources = {s.path for download in downloads for s in download.sources if isinstance(s, PathSource)}
    hashes = HashMemo(models_dir, dry_run=True)
    seen: dict[str, object] = {}
    found: dict[str, ListedEntry] = {}
    passed_over: dict[str, str] = {}
    for path, info in _files([models_dir, *places], models_dir, passed_over):
        if (path.name, info.st_size) in listed or path in sources:
            continue
        listed.add((path.name, info.st_size))  # a second copy adds nothing
        stamp = [info.st_size, info.st_mtime_ns]
        entry, problem = memo.known(path, stamp) or _look(path)
        seen[str(path)] = [*stamp, listed_entry(entry) if entry else None, problem]
        if entry is None:
            passed_over[str(path)] = problem
            continue
        entry = _hashed(entry, hashes.remembered(path))
        _add(found, name_of_file(path), entry, taken=catalogue.entries)
    if not dry_run:
        memo.write([str(place) for place in places], seen)
    return Found({name: _in_order(entry) for name, entry in found.items()}, passed_over)


def with_hashes(found: Found, chosen: Collection[str], models_dir: Path, *, dry_run: bool = False) -> dict[str, object]:
    """Return the entries of those that were chosen, by name, each file hashed once; as they stand in `models_custom`.

    Raises:
        RoostError: a file cannot be read any more.
    """
    hashes = HashMemo(models_dir, dry_run=dry_run)
    done: dict[str, object] = {}
    for name in sorted(set(chosen) & set(found.entries)):
        entry, downloads = found.entries[name], {}
        for quantisation, download in entry.quantisations.items():
            path = _path_of(download.sources)
            try:
                file = download.file.model_copy(update={"sha256": hashes.sha256(path)})
            except OSError as error:
                raise RoostError(f"{path} cannot be read: {error.strerror}.", fix="Put it right, or away.") from None
            downloads[quantisation] = download.model_copy(update={"file": file})
        done[name] = listed_entry(entry.model_copy(update={"quantisations": downloads}))
    return done


def name_of_file(path: Path) -> str:
    """Return the name under which a file of the host is a model."""
    return f"{PREFIX}{name_of(path.stem)}"[:63].rstrip("-._")


def _look(path: Path) -> tuple[ListedEntry | None, str]:
    if SPLIT.search(path.name):
        return None, "it is one of several files; join them with llama-gguf-split --merge"
    try:
        entry = look_at(Wanted(str(path), name_of_file(path), None, UNKNOWN), Reach(path.parent)).entry
    except RoostError as error:
        return None, error.message
    except OSError as error:
        return None, str(error.strerror)
    suits = guess_roles(Seen(path.stem, entry.title, entry.architecture))
    return (entry, "") if suits else (None, "by its name it suits no role")


def _files(
    folders: Sequence[Path], models_dir: Path, passed_over: dict[str, str]
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield model files, each once, in order of their paths; links to folders are not followed."""
    left, count = MAX_ENTRIES, 0
    seen: set[tuple[int, int]] = set()
    for folder in dict.fromkeys(folders):
        for place, below, names in os.walk(folder):
            depth = len(Path(place).relative_to(folder).parts)
            ours = Path(place) == models_dir  # its folders by hash are the catalogue's
            below[:] = sorted(n for n in below if depth < MAX_DEPTH and not (ours and FOLDER.fullmatch(n)))
            left -= len(names) + len(below)
            if left < 0 or count >= MAX_FILES:
                passed_over[place] = f"more than {MAX_FILES} models or {MAX_ENTRIES} names: the rest is not looked at"
                return
            for name in sorted(n for n in names if n.lower().endswith(ENDING) and not n.startswith(".")):
                path = Path(place, name)
                try:
                    info = path.stat()
                except OSError as error:
                    passed_over[str(path)] = str(error.strerror)
                    continue
                if stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    count += 1
                    yield path, info


def _add(found: dict[str, ListedEntry], name: str, entry: ListedEntry, taken: Mapping[str, ListedEntry]) -> None:
    """Add a file as a model, or as a quantisation of one that was found: so the two are never taken for two models."""
    for other, before in found.items():
        same = (before.title, before.architecture, before.parameters) == (
            entry.title, entry.architecture, entry.parameters,
        )  # fmt: skip
        if same:
            if not set(entry.quantisations) & set(before.quantisations):
                found[other] = before.model_copy(
                    update={"quantisations": {**before.quantisations, **entry.quantisations}}
                )
            return
    number, free = 2, name
    while free in found or free in taken:
        free, number = f"{name[:60]}-{number}", number + 1
    found[free] = entry


def _in_order(entry: ListedEntry) -> ListedEntry:
    order = [*PREFERRED, *sorted(set(entry.quantisations) - set(PREFERRED))]
    return entry.model_copy(
        update={"quantisations": {q: entry.quantisations[q] for q in order if q in entry.quantisations}}
    )


def _hashed(entry: ListedEntry, sha256: str) -> ListedEntry:
    ((quantisation, download),) = entry.quantisations.items()
    file = download.file.model_copy(update={"sha256": sha256})
    return entry.model_copy(update={"quantisations": {quantisation: download.model_copy(update={"file": file})}})


def _path_of(sources: Sequence[object]) -> Path:
    return next(source.path for source in sources if isinstance(source, PathSource))


class _Memo:
    """What was seen of each file, as long as its size and modification time stay; made anew where it is not valid."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.text = ""
        self.folders: list[str] = []
        self.files: dict[str, object] = {}
        try:
            self.text = where.read_text()
            content = json.loads(self.text)
            self.folders, self.files = [str(f) for f in content["folders"]], dict(content["files"])
        except (OSError, ValueError, TypeError, KeyError):
            self.folders, self.files = [], {}

    def known(self, path: Path, stamp: Sequence[int]) -> tuple[ListedEntry | None, str] | None:
        match self.files.get(str(path)):
            case [size, mtime_ns, None, str(problem)] if [size, mtime_ns] == stamp:
                return None, problem
            case [size, mtime_ns, dict(entry), _] if [size, mtime_ns] == stamp:
                try:
                    return parse_custom({"x": entry})["x"], ""
                except RoostError:
                    return None
        return None

    def write(self, folders: Sequence[str], files: Mapping[str, object]) -> None:
        text = json.dumps({"folders": list(folders), "files": files}, sort_keys=True) + "\n"
        if text != self.text and (files or self.text) and self.where.parent.is_dir():
            write_atomic(self.where, text)
