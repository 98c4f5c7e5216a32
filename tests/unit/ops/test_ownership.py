"""The manifest decides what an uninstall may remove, so it has to be right to the letter."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.ops.errors import RoostError
from roost.ops.ownership import KINDS, Manifest, path_present, unit_present

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
ENTRIES = st.lists(st.tuples(st.sampled_from(KINDS), NAMES), max_size=12)


@given(entries=ENTRIES, gone=ENTRIES)
def test_what_was_recorded_and_not_forgotten_is_owned_in_order(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str]], gone: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "folder/manifest"
    for kind, name in entries:
        Manifest(path).own(kind, name)
    for kind, name in gone:
        Manifest(path).forget(kind, name)
    for kind in KINDS:
        left = dict.fromkeys(n for k, n in entries if k == kind and (k, n) not in gone)
        assert Manifest(path).owned(kind) == list(left)


def test_only_what_is_new_is_said_to_be(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest")
    assert manifest.own("path", "/a", "/b", "/a") == ["/a", "/b"]
    before = manifest.path.stat()
    assert manifest.own("path", "/b") == []
    assert manifest.path.stat().st_mtime_ns == before.st_mtime_ns
    assert stat.S_IMODE(before.st_mode) == 0o644
    assert manifest.forget("path", "/b", "/never") == ["/b"]


@pytest.mark.parametrize("line", ["path /a", "thing\t/a", "path\t", "\t/a"])
def test_a_damaged_manifest_is_not_guessed_at(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest").write_text(f"path\t/ok\n{line}\n")
    with pytest.raises(RoostError, match="line 2"):
        Manifest(tmp_path / "manifest").owned("path")
    with pytest.raises(RoostError, match="line 2"):
        Manifest(tmp_path / "manifest").own("path", "/b")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("nonsense", "/a"), ("path", ""), ("path", "a\nuser\troot"), ("path", "a\tb"), ("path", "a\x0bb")],
)
def test_what_could_not_be_read_back_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(RoostError):
        Manifest(tmp_path / "manifest").own(kind, name)
    assert not (tmp_path / "manifest").exists()


def test_a_dangling_link_is_something_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert path_present(str(tmp_path / "link"))
    assert not path_present(str(tmp_path / "other"))
    (tmp_path / "x.service").touch()
    assert unit_present("x", roots=[str(tmp_path)])
    assert not unit_present("roost-no-such-unit", roots=[str(tmp_path)])
