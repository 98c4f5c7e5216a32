"""The playbook's variables, read by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.ops.errors import RoostError
from roost.ops.variables import load_variables, resolve

REPOSITORY = Path(__file__).parents[3]


def test_the_repositorys_own_defaults_resolve(tmp_path: Path) -> None:
    found = load_variables(REPOSITORY, tmp_path / "host.yaml")
    assert found["roost_artifacts_dir"] == "/var/lib/roost/artifacts"
    assert found["roost_release_dir"] == str(REPOSITORY)
    assert not [name for name, value in found.items() if isinstance(value, str) and "{{" in value]


def test_the_operators_file_wins_and_what_refers_to_it_follows(tmp_path: Path) -> None:
    (tmp_path / "host.yaml").write_text("roost_state_dir: /srv/roost\nnomad_http_port: 5646\n")
    found = load_variables(REPOSITORY, tmp_path / "host.yaml")
    assert found["roost_artifacts_dir"] == "/srv/roost/artifacts"
    assert found["nomad_http_port"] == 5646


def test_references_in_lists_and_expressions_resolve_to_values() -> None:
    found = resolve({"a": "x", "b": ["{{ a }}/1"], "c": "{{ ['p', 'q'] if a == 'x' else [] }}", "d": {"e": "{{ b }}"}})
    assert found == {"a": "x", "b": ["x/1"], "c": ["p", "q"], "d": {"e": ["x/1"]}}


def test_what_only_a_play_knows_stays() -> None:
    assert resolve({"a": "{{ ansible_facts.os }}"}) == {"a": "{{ ansible_facts.os }}"}


@pytest.mark.parametrize(("text", "word"), [("a: [", "valid YAML"), ("- a\n", "hold variables")])
def test_a_wrong_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "host.yaml").write_text(text)
    with pytest.raises(RoostError, match=word):
        load_variables(REPOSITORY, tmp_path / "host.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "host.yaml").write_text("# nothing yet\n")
    assert load_variables(REPOSITORY, tmp_path / "host.yaml") == load_variables(REPOSITORY, tmp_path / "none.yaml")


def test_a_release_without_defaults_is_said(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="missing"):
        load_variables(tmp_path, tmp_path / "host.yaml")
