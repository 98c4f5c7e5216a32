"""Which files a node gives to others: whole ones only."""

from __future__ import annotations

from pathlib import Path

from roost.models.share import whole_file
from roost.models.store import FILE_MODE, write_stamp

FOLDER, NAME = "0123456789abcdef", "x.gguf"


def test_only_what_was_verified_is_given(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / NAME
    path.parent.mkdir()
    path.write_bytes(b"model")
    assert whole_file(tmp_path, FOLDER, NAME) is None
    write_stamp(path, "0" * 64)
    assert whole_file(tmp_path, FOLDER, NAME) is None  # somebody may still write to it
    path.chmod(FILE_MODE)
    assert whole_file(tmp_path, FOLDER, NAME) == path
    for folder, name in ((FOLDER, ".x.gguf.stamp"), ("..", NAME), (FOLDER, f"../{FOLDER}/{NAME}"), ("secrets", NAME)):
        assert whole_file(tmp_path, folder, name) is None
    path.chmod(0o644)
    path.write_bytes(b"another")
    path.chmod(FILE_MODE)
    assert whole_file(tmp_path, FOLDER, NAME) is None
    (path.parent / "link.gguf").symlink_to(path)
    assert whole_file(tmp_path, FOLDER, "link.gguf") is None
