"""Files that nobody needs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from roost.models.fetch import Places
from roost.models.gc import find_unused, remove
from roost.models.schema import ModelFile
from roost.models.store import model_path, stamp_path, write_stamp


def made(places: Places, name: str, size: int, *, cached: bool = True) -> ModelFile:
    """Have a model's file as a fetch leaves it."""
    content = name.encode().ljust(size, b".")
    file = ModelFile(name=name, bytes=size, sha256=hashlib.sha256(content).hexdigest())
    path = model_path(places.models_dir, file)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    write_stamp(path, file.sha256)
    if cached:
        places.cached(file).parent.mkdir(parents=True, exist_ok=True)
        places.cached(file).hardlink_to(path)
    return file


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "cache")


def test_what_no_slot_serves_goes_and_the_rest_stays(places: Places) -> None:
    served = made(places, "served.gguf", 1000)
    idle = made(places, "idle.gguf", 2000)
    stray = made(places, "stray.gguf", 300, cached=False)
    unused = find_unused(places, [served], {"served": served, "idle": idle})
    assert {(item.path, item.frees) for item in unused} == {
        (model_path(places.models_dir, idle), 2000),
        (places.cached(idle), 0),  # a second name of the same file
        (model_path(places.models_dir, stray), 300),
    }
    why = {item.path.name: item.why for item in unused}
    assert why["idle.gguf"] == "no slot serves idle"
    assert why["stray.gguf"] == "no slot serves it; not in the catalogue"
    assert remove(unused) == 2300
    left = model_path(places.models_dir, served)
    assert sorted(places.models_dir.rglob("*")) == sorted([left.parent, left, stamp_path(left)])
    assert list((places.cache_dir / "models").iterdir()) == [places.cached(served)]
    assert find_unused(places, [served], {"served": served}) == []


def test_begun_downloads_and_what_killed_runs_left(places: Places) -> None:
    served = made(places, "served.gguf", 10)
    gone = served.model_copy(update={"sha256": "f" * 64})
    for file in (served, gone):
        places.partial(file).write_bytes(b"part")
    scratch = model_path(places.models_dir, served).parent / ".fetch-dead"
    scratch.mkdir()
    (scratch / "half").write_bytes(b"half!")
    unused = find_unused(places, [served], {"served": served})
    assert [(item.path, item.frees) for item in unused] == [(scratch, 5), (places.partial(gone), 4)]
    remove(unused)
    assert places.partial(served).exists()
    assert not scratch.exists()


def test_names_that_are_not_ours_are_left_alone(places: Places) -> None:
    for folder in (places.models_dir, places.cache_dir / "models"):
        (folder / "theirs").mkdir(parents=True)
        (folder / "theirs" / "x.gguf").write_bytes(b"x")
        (folder / "note.txt").write_bytes(b"x")
    assert find_unused(places, [], {}) == []
    assert find_unused(Places(places.models_dir / "none", places.cache_dir / "none"), [], {}) == []
