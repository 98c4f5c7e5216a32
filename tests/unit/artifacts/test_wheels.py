"""Wheels of a locked file: from the cache, checked, for another Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.artifacts import wheels
from roost.fleet.artifacts.wheels import Target
from roost.ops.errors import RoostError
from tests.unit.artifacts.making import wheel

TARGET = Target("3.11", "amd64", 36)


def install(requirements: Path, cache: Path, folder: Path, said: list[str], more: Path | None = None) -> None:
    """Install for the test's target."""
    wheels.install(requirements, TARGET, cache, folder, ca=None, notify=said.append, more=more)


def test_pins_are_read_with_all_their_hashes() -> None:
    text = "One-Two==1.0 \\\n    --hash=sha256:" + "a" * 64 + " \\\n    --hash=sha256:" + "b" * 64 + "\n    # via x\n"
    assert wheels.pins(text) == {("one_two", "1.0"): frozenset({"a" * 64, "b" * 64})}


def test_the_target_admits_older_libraries_and_no_newer_ones() -> None:
    flags = TARGET.flags()
    assert "manylinux_2_36_x86_64" in flags
    assert "manylinux2014_x86_64" in flags
    assert "manylinux_2_37_x86_64" not in flags


def test_a_full_cache_needs_no_network(tmp_path: Path) -> None:
    _, line = wheel(tmp_path / "cache")
    (tmp_path / "locked.txt").write_text(line)
    said: list[str] = []
    install(tmp_path / "locked.txt", tmp_path / "cache", tmp_path / "site", said)
    assert (tmp_path / "site/tiny.py").is_file()
    assert said == []


def test_a_damaged_wheel_in_the_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, line = wheel(tmp_path / "index")
    (tmp_path / "locked.txt").write_text(line)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / good.name).write_bytes(good.read_bytes()[:-20])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    said: list[str] = []
    with pytest.raises(RoostError, match="could not be fetched"):
        install(tmp_path / "locked.txt", cache, tmp_path / "site", said)
    assert "damaged" in said[0]
    assert not (cache / good.name).exists()
    assert not (tmp_path / "site").exists()


def test_a_wheel_that_is_not_the_locked_one_is_refused(tmp_path: Path) -> None:
    path, line = wheel(tmp_path / "bundle")
    (tmp_path / "locked.txt").write_text(line)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(RoostError, match="MATCH THE HASHES"):
        install(tmp_path / "locked.txt", tmp_path / "cache", tmp_path / "site", [], more=tmp_path / "bundle")


def test_a_bundle_without_the_wheel_says_what_to_do(tmp_path: Path) -> None:
    _, line = wheel(tmp_path / "elsewhere")
    (tmp_path / "locked.txt").write_text(line)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(RoostError, match=r"offline folder lacks wheels of locked.txt for Python 3.11"):
        install(tmp_path / "locked.txt", tmp_path / "cache", tmp_path / "site", [], more=tmp_path / "bundle")
