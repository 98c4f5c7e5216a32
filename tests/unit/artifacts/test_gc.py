"""What is removed, and above all what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.artifacts import gc
from roost.fleet.artifacts.gc import Candidate, unneeded
from roost.fleet.artifacts.store import describe

if TYPE_CHECKING:
    from pathlib import Path

TAGS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


def candidates(tags: str, name: str = "agent") -> list[Candidate]:
    """Return artifacts, the first one the oldest."""
    return [Candidate(name, tag, f"id-{name}-{tag}", f"2026-01-0{n}") for n, tag in enumerate(tags, 1)]


def removed(tags: str, history: str, used: str = "", keep: int = 1) -> str:
    """Return the tags chosen for removal."""
    found = unneeded(candidates(tags), {"agent": list(history)}, {f"id-agent-{u}" for u in used}, keep_previous=keep)
    return "".join(sorted(c.tag for c in found))


def test_current_and_previous_stay() -> None:
    assert removed("abcd", "dcba") == "ab"


def test_previous_is_what_ran_before_not_what_is_younger() -> None:
    assert removed("abcd", "ad") == "bc"


def test_what_is_in_use_stays() -> None:
    assert removed("abcd", "dcba", used="a") == "b"


def test_more_or_fewer_may_be_kept() -> None:
    assert removed("abcd", "dcba", keep=0) == "abc"
    assert removed("abcd", "dcba", keep=2) == "a"


def test_without_a_history_nothing_goes() -> None:
    assert removed("abcd", "") == ""


def test_names_do_not_mix() -> None:
    both = candidates("abc") + candidates("abc", "base")
    assert {c.name for c in unneeded(both, {"base": ["c", "b"]}, set(), keep_previous=1)} == {"base"}


@given(TAGS, TAGS, st.sets(st.sampled_from("abcdefgh")), st.integers(0, 3))
def test_the_current_one_and_what_is_used_always_stay(
    tags: list[str], history: list[str], used: set[str], keep: int
) -> None:
    gone = set(removed("".join(tags), "".join(history), "".join(used), keep))
    assert not gone & used
    assert not gone & set(history[:1])
    assert gone <= set(tags)


def test_history_is_newest_first_and_said_once(tmp_path: Path) -> None:
    assert gc.remember(tmp_path, {"agent": "a"})
    assert not gc.remember(tmp_path, {"agent": "a"})
    assert gc.remember(tmp_path, {"agent": "b"})
    assert gc.remember(tmp_path, {"agent": "a"})
    assert gc.read_history(tmp_path) == {"agent": ["a", "b"]}


def test_trees_go_except_those_a_process_uses(tmp_path: Path) -> None:
    for tag in "abcd":
        tree = tmp_path / f"engine-{tag}"
        tree.mkdir()
        describe(tree, tag=tag)
        gc.remember(tmp_path, {"engine": tag})
    (tmp_path / "engine-foreign").mkdir()
    process = tmp_path / "proc/77"
    process.mkdir(parents=True)
    (process / "cwd").symlink_to(tmp_path / "engine-a/usr/lib")
    used = gc.used_paths(tmp_path, tmp_path / "proc")
    assert used == {str(tmp_path / "engine-a")}
    found = unneeded(gc.trees(tmp_path), gc.read_history(tmp_path), used, keep_previous=1)
    assert [c.tag for c in found] == ["b"]
    gc.collect_trees(tmp_path, keep_previous=1)
    assert sorted(path.name for path in tmp_path.glob("engine-*")) == ["engine-c", "engine-d", "engine-foreign"]
