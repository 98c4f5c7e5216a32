"""Each role's README is the one that follows from the role; a variable, a default or a task changed shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import role_readmes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("ansible/roles", "group_vars"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "playbook.yaml", tmp_path)
    return tmp_path


def test_every_readme_is_what_its_role_says() -> None:
    assert role_readmes.stale() == []


@pytest.mark.parametrize(
    ("file", "old", "new", "roles"),
    [
        ("group_vars/all.yaml", "docker_ready_s: 30", "docker_ready_s: 31", {"docker"}),
        ("ansible/roles/gate/meta/argument_specs.yml", "Wait until the machine", "Wait till the machine", {"gate"}),
        ("ansible/roles/gate/tasks/main.yml", "Gate | Wait until", "Gate | Wait till", {"gate"}),
        ("playbook.yaml", "name: Ask for an answer", "name: Ask", {"verify"}),
    ],
)
def test_a_change_of_a_role_makes_its_readme_stale(copy: Path, file: str, old: str, new: str, roles: set[str]) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    assert {path.parent.name for path in role_readmes.stale(copy)} == roles


def test_a_missing_readme_is_stale(copy: Path) -> None:
    (copy / "ansible/roles/gate/README.md").unlink()
    assert [path.parent.name for path in role_readmes.stale(copy)] == ["gate"]


def test_a_default_with_a_bar_does_not_break_the_table() -> None:
    assert role_readmes.default_of("{{ a | b }}") == r"`{{ a \| b }}`"
    assert role_readmes.default_of("") == "empty"
    assert role_readmes.default_of([1, "x"]) == '`[1, "x"]`'
    assert role_readmes.default_of("x" * 100) == "see `group_vars/all.yaml`"
