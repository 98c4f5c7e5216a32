"""Lists in files that several programs of one user change."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from roost.ops.errors import RoostError
from roost.ops.file_lock import locked

ROUNDS = 50


def _count(file: Path) -> None:
    for _ in range(ROUNDS):
        with locked(file):
            file.write_text(str(int(file.read_text()) + 1))


def test_two_programs_lose_nothing_of_each_other(tmp_path: Path) -> None:
    file = tmp_path / "new" / "list"
    with locked(file):
        file.write_text("0")
    others = [multiprocessing.get_context("spawn").Process(target=_count, args=(file,)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert file.read_text() == str(2 * ROUNDS)


def test_a_place_that_cannot_be_written_to_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RoostError, match="cannot be written") as told, locked(tmp_path / "file" / "list.json"):
        pass
    assert "XDG_CONFIG_HOME" in told.value.fix
