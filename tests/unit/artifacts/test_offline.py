"""The offline folder: whole, or a clear word about what is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from roost.ops.errors import RoostError
from roost.ops.offline import OfflineBundle


def bundle(folder: Path, **files: str) -> OfflineBundle:
    """Make a bundle; `__` in names stands for a slash."""
    listed = {}
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        listed[name.replace("__", "/")] = {"sha256": digest, "bytes": len(text)}
    contents = {
        "format": 1,
        "roost_version": "0",
        "arch": "amd64",
        "runtime": "docker",
        "python": ["3.11"],
        "files": listed,
    }
    (folder / "bundle.json").write_text(json.dumps(contents))
    return OfflineBundle(folder)


def test_a_whole_bundle_gives_its_files(tmp_path: Path) -> None:
    found = bundle(tmp_path, wheels__a="one", nomad__nomad="two")
    found.verify()
    assert found.path("wheels/a") == tmp_path / "wheels/a"
    assert found.directory("wheels") == tmp_path / "wheels"
    assert found.names("nomad/") == ["nomad/nomad"]


@pytest.mark.parametrize("text", ["twx", "tw", "two more"])
def test_a_changed_file_is_refused(tmp_path: Path, text: str) -> None:
    found = bundle(tmp_path, nomad__nomad="two")
    (tmp_path / "nomad/nomad").write_text(text)
    with pytest.raises(RoostError, match="wrong checksum"):
        found.path("nomad/nomad")


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = bundle(tmp_path, a="one", b="two", c="three")
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("2")
    with pytest.raises(RoostError) as caught:
        found.verify()
    assert "a is listed" in caught.value.message
    assert "b has the wrong checksum" in caught.value.message


def test_what_is_not_listed_does_not_count(tmp_path: Path) -> None:
    found = bundle(tmp_path, a="one")
    (tmp_path / "stray").write_text("x")
    with pytest.raises(RoostError, match="has no stray"):
        found.path("stray")
    with pytest.raises(RoostError, match="has no wheels"):
        found.directory("wheels")


def test_another_folder_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match=r"bundle\.json is missing"):
        OfflineBundle(tmp_path)
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(RoostError, match="not valid"):
        OfflineBundle(tmp_path)
