"""Remove artifacts nothing needs any more: older than the previous one, and used by nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.store import PARTIAL, is_tree
from roost.ops.files import write_atomic

HISTORY = "history.json"
REMEMBERED = 10
TREES = {"engine", "engine-python", "agent", "monitoring"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact that exists: its name, its tag, what containers or processes know it by, and when it was made."""

    name: str
    tag: str
    id: str
    created: str


def unneeded(
    candidates: Iterable[Candidate], history: Mapping[str, Sequence[str]], used: set[str], *, keep_previous: int
) -> list[Candidate]:
    """Choose what to remove: all but the current one, the `keep_previous` before it, and what is in use.

    `history` gives the tags of each name that were current, newest first; the first one is current now. What it does
    not know counts as older, the newest first. A name that has no history loses nothing.
    """
    by_name: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_name.setdefault(candidate.name, []).append(candidate)
    chosen: list[Candidate] = []
    for name, found in by_name.items():
        known = list(history.get(name, ()))
        if not known:
            continue
        newest_first = sorted(found, key=lambda c: c.created, reverse=True)
        ranked = sorted(newest_first, key=lambda c: known.index(c.tag) if c.tag in known else len(known))
        present_current = [c for c in ranked if c.tag == known[0]]
        previous = [c for c in ranked if c.tag != known[0]]
        kept = {c.id for c in present_current + previous[:keep_previous]}
        chosen += [c for c in previous if c.id not in kept and c.id not in used]
    return chosen


def read_history(artifacts_dir: Path) -> dict[str, list[str]]:
    """Return the tags that were current on this machine, newest first, by artifact name."""
    try:
        content = json.loads((artifacts_dir / HISTORY).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(artifacts_dir: Path, tags: Mapping[str, str]) -> bool:
    """Write down which tags are current; return whether that is new."""
    history = read_history(artifacts_dir)
    updated = dict(history)
    for name, tag in tags.items():
        before = history.get(name, [])
        updated[name] = [tag, *(other for other in before if other != tag)][:REMEMBERED]
    if updated == history:
        return False
    artifacts_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(artifacts_dir / HISTORY, json.dumps(updated, indent=1, sort_keys=True) + "\n")
    return True


def trees(artifacts_dir: Path) -> list[Candidate]:
    """Return the artifact trees of a folder."""
    found = []
    for path in sorted(artifacts_dir.glob("*-*")):
        name, _, tag = path.name.rpartition("-")
        if name in TREES and is_tree(path):
            found.append(Candidate(name, tag, str(path), f"{path.stat().st_mtime:020.3f}"))
    return found


def used_paths(folder: Path, proc: Path = Path("/proc")) -> set[str]:
    """Return the trees in `folder` that a running process has as program, working folder, mapped file or argument."""
    prefix = f"{folder}/"
    used = set()
    for process in proc.glob("[0-9]*"):
        words: list[str] = []
        for link in ("exe", "cwd"):
            try:
                words.append(str((process / link).readlink()))
            except OSError:
                continue
        for name in ("cmdline", "environ"):
            try:
                words += (process / name).read_text(errors="replace").replace("=", "\0").replace(":", "\0").split("\0")
            except OSError:
                continue
        used |= {prefix + word.removeprefix(prefix).split("/", 1)[0] for word in words if word.startswith(prefix)}
    return used


def collect_trees(artifacts_dir: Path, *, keep_previous: int) -> list[str]:
    """Remove unneeded trees; return the paths removed."""
    chosen = unneeded(
        trees(artifacts_dir), read_history(artifacts_dir), used_paths(artifacts_dir), keep_previous=keep_previous
    )
    for candidate in chosen:
        # Renamed first: nobody finds half a tree under a name that counts.
        doomed = Path(candidate.id).rename(artifacts_dir / f"{PARTIAL}{Path(candidate.id).name}-gone")
        shutil.rmtree(doomed)
    return [candidate.id for candidate in chosen]


def collect_images(docker: Docker, artifacts_dir: Path, *, keep_previous: int) -> list[str]:
    """Remove unneeded images of ours and what interrupted builds left; return the references removed."""
    images = {image.reference: image for image in docker.images()}
    candidates = [Candidate(i.name, i.tag, i.id, i.created) for i in images.values()]
    used = docker.used_images()
    chosen = unneeded(candidates, read_history(artifacts_dir), used, keep_previous=keep_previous)
    ids = {c.id for c in chosen}
    references = [reference for reference, image in images.items() if image.id in ids]
    docker.remove(references)
    docker.prune_untagged()
    return references


def remove_images(docker: Docker, *, dry_run: bool = False) -> list[str]:
    """Remove every image of ours and the containers made from them; return their references.

    Nothing is done where no Docker answers: then there is nothing of ours in it.
    """
    references = [image.reference for image in docker.images_or_none()]
    if references and not dry_run:
        docker.remove_containers()
        docker.remove(references)
        docker.prune_untagged()
    return references
