"""A run has nothing to do exactly where nothing is another thing than the last one left it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.footprint import compare
from roost.fleet.footprint.compare import Footprint

THINGS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2"]))
FOOTPRINTS = st.builds(Footprint, wish=st.sampled_from(["x", "y"]), things=THINGS)


@given(FOOTPRINTS, FOOTPRINTS)
def test_there_is_no_difference_exactly_between_equal_ones(before: Footprint, now: Footprint) -> None:
    assert (compare.differences(before, now) == []) == (before == now)


@given(footprint=FOOTPRINTS)
def test_what_is_kept_is_read_again(tmp_path_factory: pytest.TempPathFactory, footprint: Footprint) -> None:
    folder = tmp_path_factory.mktemp("footprint")
    compare.keep(folder, footprint)
    assert compare.read(folder) == footprint


def test_of_what_is_not_known_nothing_is_believed(tmp_path: Path) -> None:
    now = Footprint("x", {})
    assert compare.differences(compare.read(tmp_path), now)
    for text in ("", "[]", "{", '{"wish": "x"}', '{"wish": "x", "things": []}'):
        (tmp_path / compare.FILE).write_text(text)
        assert compare.differences(compare.read(tmp_path), now), text


def test_only_root_reads_what_is_kept(tmp_path: Path) -> None:
    compare.keep(tmp_path / "update", Footprint("x", {"a": "1"}))
    assert (tmp_path / "update").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "update" / compare.FILE).stat().st_mode & 0o777 == 0o600


def test_a_machine_that_does_not_do_its_work_is_never_kept_and_never_passed_over(tmp_path: Path) -> None:
    good, ill = Footprint("x", {"a": "1"}), Footprint("x", {"a": "1"}, "its node is down")
    compare.keep(tmp_path, good)
    assert compare.differences(compare.read(tmp_path), ill) == ["its node is down"]
    compare.keep(tmp_path, ill)
    assert compare.read(tmp_path) is None
    assert compare.differences(compare.read(tmp_path), ill)
