"""Nothing half done, nothing damaged goes unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.artifacts.store import Checked, describe, is_tree, publishing, require_space
from roost.ops.errors import RoostError


def make(folder: Path, *, fail: type[BaseException] | None = None) -> None:
    """Publish a folder with one file, or be interrupted on the way."""
    with publishing(folder) as partial:
        (partial / "file").write_text("content")
        if fail is not None:
            raise fail
        describe(partial, kind="test")


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    make(tmp_path / "tree-1")
    assert is_tree(tmp_path / "tree-1")
    assert [path.name for path in tmp_path.iterdir()] == ["tree-1"]


@pytest.mark.parametrize("fail", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(tmp_path: Path, fail: type[BaseException]) -> None:
    with pytest.raises(fail):
        make(tmp_path / "tree-1", fail=fail)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial-tree-1-abc/usr").mkdir(parents=True)
    (tmp_path / ".partial-tree-0-abc/usr").mkdir(parents=True)
    make(tmp_path / "tree-1")
    assert [path.name for path in tmp_path.iterdir()] == ["tree-1"]


def test_a_file_and_its_hash_appear_together(tmp_path: Path) -> None:
    checked = Checked(tmp_path / "image.tar")
    with checked.writing() as partial:
        assert not checked.exists()
        partial.write_text("content")
    assert checked.is_intact()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_cut_short_is_seen(tmp_path: Path) -> None:
    checked = Checked(tmp_path / "image.tar")
    with checked.writing() as partial:
        partial.write_text("content")
    checked.path.write_text("cont")
    assert checked.exists()
    assert not checked.is_intact()
    checked.remove()
    assert list(tmp_path.iterdir()) == []


def write(checked: Checked, *, fail: type[BaseException] | None = None) -> None:
    """Write a checked file, or be interrupted on the way."""
    with checked.writing() as partial:
        partial.write_text("content")
        if fail is not None:
            raise fail


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(Checked(tmp_path / "image.tar"), fail=KeyboardInterrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="MB are needed"):
        require_space(tmp_path / "not/yet", 1 << 60)
    require_space(tmp_path, 0)
