"""Tags follow the inputs: all of them, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.artifacts.deb_tree import deb_tree_tag
from roost.fleet.artifacts.plan import AGENT, BASE, ENGINE, UNRESOLVED, Choices, make_plan
from roost.fleet.artifacts.resolution import Resolution, ResolutionBook, Wanted
from roost.fleet.artifacts.store import TAG_DIGITS, tag_of
from roost.ops.errors import RoostError
from tests.unit.artifacts.making import choices, resolution

if TYPE_CHECKING:
    from pathlib import Path

BASE_VERSIONS = {"python3_minimal": "3.11.2-1", "libc6": "2.36-9", "openssl": "3.0.20"}


def decided(chosen: Choices, **base: str) -> tuple[Resolution, Resolution]:
    """Return resolutions of engine and base, with changed versions where given."""
    return resolution(chosen.engine, wget="1.25"), resolution(chosen.base, **{**BASE_VERSIONS, **base})


def tags(chosen: Choices, **base: str) -> dict[str, str]:
    """Return the tags of a plan."""
    return make_plan(chosen, *decided(chosen, **base)).tags


def test_the_same_inputs_give_the_same_tags(tmp_path: Path) -> None:
    assert tags(choices(tmp_path)) == tags(choices(tmp_path))
    assert set(tags(choices(tmp_path))) == {AGENT, BASE, ENGINE}


def test_the_order_of_packages_is_no_input(tmp_path: Path) -> None:
    one = choices(tmp_path, engine_packages=("a", "b"))
    assert one.engine == choices(tmp_path, engine_packages=("b", "a", "a")).engine


def test_a_new_version_in_the_base_changes_base_and_agent(tmp_path: Path) -> None:
    before, after = tags(choices(tmp_path)), tags(choices(tmp_path), openssl="3.0.22")
    assert before[BASE] != after[BASE]
    assert before[AGENT] != after[AGENT]
    assert before[ENGINE] == after[ENGINE]


def test_a_new_version_in_the_engine_changes_the_engine_only(tmp_path: Path) -> None:
    chosen = choices(tmp_path)
    engine, base = decided(chosen)
    newer = resolution(chosen.engine, wget="1.26")
    before, after = make_plan(chosen, engine, base).tags, make_plan(chosen, newer, base).tags
    assert {name for name in before if before[name] != after[name]} == {ENGINE}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("app/roost/new.py", {AGENT}),
        ("requirements/agent.txt", {AGENT}),
        ("images/agent/Dockerfile", {AGENT}),
        ("images/llama-server/Dockerfile", {ENGINE}),
        ("images/base/README.md", set()),
        ("app/roost/__pycache__/x.pyc", set()),
        ("group_vars/all.yaml", set()),
    ],
)
def test_a_file_of_the_release_changes_what_is_made_of_it(tmp_path: Path, file: str, changed: set[str]) -> None:
    chosen = choices(tmp_path)
    before = tags(chosen)
    path = chosen.release_dir / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("other\n")
    after = tags(chosen)
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_agents_tree_follows_the_python_it_runs_on(tmp_path: Path) -> None:
    found = set()
    for version in ("3.11", "3.12", "3.11"):
        chosen = choices(tmp_path, "local", python_version=version)
        found.add(make_plan(chosen, resolution(chosen.engine, wget="1"), None).tags[AGENT])
    assert len(found) == 2


def test_without_a_resolution_what_depends_on_it_is_unresolved(tmp_path: Path) -> None:
    plan = make_plan(choices(tmp_path), None, None)
    assert set(plan.tags.values()) == {UNRESOLVED}
    assert not plan.resolved
    assert make_plan(choices(tmp_path, "local"), None, None).tags[ENGINE] == UNRESOLVED


def test_a_base_without_python_is_refused(tmp_path: Path) -> None:
    chosen = choices(tmp_path)
    with pytest.raises(RoostError, match="no Python"):
        make_plan(chosen, None, resolution(chosen.base, libc6="2.36"))


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    chosen = choices(tmp_path, "local")
    (chosen.release_dir / "requirements/agent.txt").unlink()
    with pytest.raises(RoostError, match="not a release"):
        make_plan(chosen, None, None)


@given(st.dictionaries(st.text(), st.text() | st.integers(), max_size=5))
def test_a_tag_is_twelve_hex_digits_whatever_goes_in(inputs: dict[str, object]) -> None:
    tag = tag_of(inputs)
    assert len(tag) == TAG_DIGITS
    assert set(tag) <= set("0123456789abcdef")
    assert tag == tag_of(dict(reversed(inputs.items())))


@given(st.sampled_from(["name", "version", "sha256"]))
def test_every_field_of_a_package_counts_in_the_engines_tag(field: str) -> None:
    wanted = Wanted(kind="engine", suite="forky", packages=("wget",), arch="amd64")
    before = resolution(wanted, wget="1.25")
    changed = before.packages[0].model_copy(update={field: "f" * 64})
    assert deb_tree_tag(before) != deb_tree_tag(Resolution(wanted=wanted, packages=(changed,)))


def test_decisions_are_kept_here_and_shared(tmp_path: Path) -> None:
    chosen = choices(tmp_path)
    engine, _ = decided(chosen)
    book = ResolutionBook(tmp_path / "one", [tmp_path / "shared"])
    assert book.find(chosen.engine) == (None, False)
    assert book.keep(engine)
    assert not book.keep(engine)
    assert book.find(chosen.engine) == (engine, True)
    assert ResolutionBook(tmp_path / "two", [tmp_path / "shared"]).find(chosen.engine) == (engine, False)


def test_a_decision_for_other_variables_is_not_used(tmp_path: Path) -> None:
    chosen = choices(tmp_path)
    book = ResolutionBook(tmp_path, [])
    book.keep(decided(chosen)[0])
    assert book.find(choices(tmp_path, engine_suite="sid").engine) == (None, False)


def test_a_damaged_book_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "resolved.json").write_text("{")
    assert ResolutionBook(tmp_path, []).find(choices(tmp_path).engine) == (None, False)
