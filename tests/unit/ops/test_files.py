"""Files: what was written is on the disk, its name too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost.ops.files import write_atomic


def test_the_folder_is_synced_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, synced = tmp_path / "file", []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink() == tmp_path, target.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(target, "content")
    assert target.read_text() == "content"
    assert synced == [(False, False), (True, True)]
