"""What artifacts there are on this machine, and which of them are current."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roost.fleet.artifacts import gc
from roost.fleet.artifacts.ensure import Workshop


@dataclass(frozen=True, slots=True)
class Listed:
    """One artifact as the command line shows it."""

    artifact: str  # what it is called: an image's reference, or a folder
    name: str
    tag: str
    state: str  # current, previous, older
    in_use: bool
    size: str
    created: str


def state_of(name: str, tag: str, history: dict[str, list[str]]) -> str:
    """Say which of its kind an artifact is."""
    known = history.get(name, [])
    if known[:1] == [tag]:
        return "current"
    return "previous" if known[1:2] == [tag] else "older"


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def listed(workshop: Workshop) -> list[Listed]:
    """Return images for the runtime docker, and the trees of either; newest first of each name.

    Raises:
        RoostError: Docker does not answer.
    """
    folder = workshop.choices.artifacts_dir
    history = gc.read_history(folder)
    rows = []
    used_trees = gc.used_paths(folder)
    for tree in gc.trees(folder):
        size = f"{tree_bytes(Path(tree.id)) / 1e6:.1f}MB"
        state = state_of(tree.name, tree.tag, history)
        rows.append(Listed(tree.id, tree.name, tree.tag, state, tree.id in used_trees, size, tree.created))
    if workshop.choices.runtime == "docker":
        used = workshop.docker.used_images()
        for image in workshop.docker.images():
            state = state_of(image.name, image.tag, history)
            rows.append(
                Listed(image.reference, image.name, image.tag, state, image.id in used, image.size, image.created)
            )
    newest_first = sorted(rows, key=lambda row: row.created, reverse=True)
    return sorted(newest_first, key=lambda row: row.name)
