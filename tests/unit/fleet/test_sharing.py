"""What one machine of a fleet gives the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.sharing import Peer, shared_file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/image-agent-1.tar").write_text("image")
    (tmp_path / "artifacts/.partial-x").write_text("unfinished")
    (tmp_path / "secret").write_text("not for others")
    (tmp_path / "artifacts/link").symlink_to(tmp_path / "secret")
    return tmp_path


def test_finished_files_of_its_folders_are_given(cache: Path) -> None:
    assert shared_file(cache, "artifacts/image-agent-1.tar") == cache / "artifacts/image-agent-1.tar"


@pytest.mark.parametrize(
    "name", ["", "secret", "artifacts", "artifacts/.partial-x", "artifacts/link", "artifacts/../secret", "/etc/passwd",
             "artifacts/none"],
)  # fmt: skip
def test_nothing_else_is(cache: Path, name: str) -> None:
    assert shared_file(cache, name) is None


def test_a_peer_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("")
    peer = Peer("https://127.0.0.1:9", *(tmp_path / n for n in ("ca.pem", "cert.pem", "key.pem")))
    assert peer.bring(tmp_path / "cache", ["artifacts/image-agent-1.tar"], said.append) == 0
    assert said
    assert not list((tmp_path / "cache/artifacts").iterdir())
