"""The file that says which file of a hub was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.models.lock_file import Locked, add_lock, default_path, read_locks
from roost.ops.errors import RoostError

ENTRY = Locked(repository="a/b", revision="main", file="c.gguf", commit="0" * 40, bytes=7, sha256="1" * 64)
NEWER = ENTRY.model_copy(update={"commit": "2" * 40, "sha256": "3" * 64})


def test_entries_are_kept_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "models.lock.yaml"
    assert read_locks(path) == {}
    add_lock(path, "one", ENTRY)
    add_lock(path, "two", NEWER)
    assert read_locks(path) == {"one": ENTRY, "two": NEWER}
    assert "remove its entry" in path.read_text()


def test_the_first_one_stays(tmp_path: Path) -> None:
    """Two processes may ask the hub while its branch moves."""
    path = tmp_path / "models.lock.yaml"
    assert add_lock(path, "one", ENTRY) == ENTRY
    assert add_lock(path, "one", NEWER) == ENTRY
    other = NEWER.model_copy(update={"file": "d.gguf"})
    assert add_lock(path, "one", other) == other
    assert read_locks(path) == {"one": other}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [", "is not valid YAML"),
        ("models: {one: {}}", "models.one.repository: is missing"),
        ("other: {}", "other: is not known"),
        (f"models: {{one: {{{ENTRY.model_dump_json()[1:-1].replace('1' * 64, 'ABC')}}}}}", "models.one.sha256"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "models.lock.yaml"
    path.write_text(text)
    with pytest.raises(RoostError) as caught:
        read_locks(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message


def test_it_lies_beside_the_site_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOST_SITE", raising=False)
    assert default_path() == Path("/etc/roost/models.lock.yaml")
    monkeypatch.setenv("ROOST_SITE", "/srv/x/site.json")
    assert default_path() == Path("/srv/x/models.lock.yaml")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="cannot be written") as caught:
        add_lock(tmp_path / "none" / "models.lock.yaml", "one", ENTRY)
    assert caught.value.exit_code == 4
