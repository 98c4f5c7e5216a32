"""Changes of a file that can be looked at and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from roost.ops import files, kept_file
from roost.ops.errors import RoostError
from roost.ops.host_file import merge
from roost.ops.kept_file import Change, apply, kept_path, undo, undo_change


@pytest.mark.parametrize("before", ["", "a: 1\n"])
def test_a_change_is_taken_back_once(tmp_path: Path, before: str) -> None:
    path = tmp_path / "host.yaml"
    if before:
        path.write_text(before)
    apply(Change(path, before, "a: 2\n"))
    assert path.read_text() == "a: 2\n"
    assert path.stat().st_mode & 0o777 == 0o600
    back = undo_change(path)
    assert (back.before, back.after) == ("a: 2\n", before)
    undo(back)
    assert (path.read_text() if path.exists() else "") == before
    assert path.exists() is bool(before)
    with pytest.raises(RoostError, match="nothing to take back"):
        undo_change(path)


def test_the_difference_names_the_file(tmp_path: Path) -> None:
    shown = Change(tmp_path / "host.yaml", "a: 1\nb: 2\n", "a: 1\nb: 3\n").diff()
    assert "-b: 2\n+b: 3\n" in shown
    assert "(new)" not in shown
    assert f"{tmp_path}/host.yaml (new)" in Change(tmp_path / "host.yaml", "", "a: 1\n").diff()
    assert not Change(tmp_path, "a", "a")


def test_a_file_that_somebody_else_changed_stays(tmp_path: Path) -> None:
    path = tmp_path / "host.yaml"
    path.write_text("a: 9\n")
    with pytest.raises(RoostError, match="changed meanwhile"):
        apply(Change(path, "a: 1\n", "a: 2\n"))
    assert path.read_text() == "a: 9\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_stop_between_the_two_files_leaves_the_first_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "host.yaml"
    path.write_text("a: 1\n")
    whole = files.write_atomic

    def stopped(target: Path, content: str, *, mode: int) -> None:
        if target == path:
            raise KeyboardInterrupt
        whole(target, content, mode=mode)

    monkeypatch.setattr(kept_file, "write_atomic", stopped)
    with pytest.raises(KeyboardInterrupt):
        apply(Change(path, "a: 1\n", "a: 2\n"))
    assert path.read_text() == "a: 1\n"
    assert not undo_change(path)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, kept_path(path).name}


def test_a_folder_that_does_not_let_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RoostError, match=r"cannot be (read|written)") as caught:
        apply(Change(tmp_path / "file" / "host.yaml", "", "a: 1\n"))
    assert caught.value.exit_code == 4


def test_slots_stand_one_a_line() -> None:
    slots = [{"slot": "main", "model": "a", "temperature": None}, {"slot": "router", "model": "b"}]
    text = merge("# mine\nmodel_slots: [{slot: x}]\nb: 1\n", {"model_slots": slots}, Path("host.yaml"))
    assert text == (
        "# mine\nmodel_slots:\n  - {slot: main, model: a, temperature: null}\n  - {slot: router, model: b}\nb: 1\n"
    )
    assert yaml.safe_load(text)["model_slots"] == slots
    assert merge(text, {"model_slots": slots[:1]}, Path("host.yaml")).count("- {") == 1
