"""Model files that lie on a host without an entry: found, read once, and candidates like any other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from roost.models import path_slots, present
from roost.models.add import Reach, Wanted, look_at
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.custom import Added
from roost.models.custom_file import listed_entry
from roost.models.estimate.shape import header_of_shape
from roost.models.gguf_header import Header
from roost.models.present import MEMO_NAME, found_models, with_hashes
from roost.ops.files import sha256_file
from tests.support.gguf_files import write_sparse

SHIPPED = Path(__file__).parents[3] / "group_vars/models.yaml"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(SHIPPED, lock=Path("/nonexistent"), custom={})


def put(path: Path, catalogue: Catalogue, quantisation: str = "Q4_0", **more: str) -> Path:
    """Write a file of the smallest model's shape, with more metadata."""
    listed = catalogue.listed("smollm2-135m-instruct")
    header = header_of_shape(listed.architecture, listed.shape, quantisation)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {key.replace("__", "."): value for key, value in more.items()}
    write_sparse(Header({**header.metadata, **said}, header.tensors), path)
    return path


def test_a_file_is_found_read_once_and_hashed_when_chosen(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    looked, models_dir = look_at, tmp_path / "models"

    def noted(wanted: Wanted, reach: Reach) -> Added:
        read.append(wanted.what)
        return looked(wanted, reach)

    monkeypatch.setattr(present, "look_at", noted)
    file = put(models_dir / "My-Router.gguf", catalogue, general__name="My Router")
    other = put(tmp_path / "mine/deep/Chat-instruct.gguf", catalogue, general__name="Chat instruct")
    found = found_models(catalogue, models_dir, [tmp_path / "mine"], dry_run=True)
    assert not (models_dir / MEMO_NAME).exists()
    assert {name: max(e.roles, key=lambda r: e.roles[r]) for name, e in found.entries.items()} == {
        "file-my-router": "router", "file-chat-instruct": "main",
    }  # fmt: skip
    found_models(catalogue, models_dir, [tmp_path / "mine"])
    memo = (models_dir / MEMO_NAME).stat().st_mtime_ns
    again = found_models(catalogue, models_dir)  # the folders are remembered, too
    assert (again, len(read)) == (found, 4)
    assert (models_dir / MEMO_NAME).stat().st_mtime_ns == memo
    assert [str(s) for s in found.beside(catalogue).listed("file-my-router").sources] == [str(file)]
    hashed = with_hashes(found, {"file-my-router", "smollm2-135m-instruct"}, models_dir)
    model = load_catalogue(SHIPPED, custom=hashed).get("file-my-router")
    assert (set(hashed), model.file.sha256) == ({"file-my-router"}, sha256_file(file))
    monkeypatch.setattr(path_slots, "sha256_file", lambda _path: "f" * 64)
    assert with_hashes(found_models(catalogue, models_dir), {"file-my-router"}, models_dir) == hashed
    with other.open("ab") as stream:
        stream.write(b"more")
    found_models(catalogue, models_dir)
    assert read[4:] == [str(other)]
    # what an entry names already is not found a second time
    mine = load_catalogue(SHIPPED, lock=Path("/nonexistent"), custom=hashed)
    assert found_models(mine, models_dir).entries.keys() == {"file-chat-instruct"}


def test_what_cannot_be_served_is_passed_over_and_said(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "hostile.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 64)
    os.mkfifo(tmp_path / "pipe.gguf")  # opening it would wait for ever
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    put(tmp_path / "part-00001-of-00002.gguf", catalogue)
    put(tmp_path / "bge-reranker.gguf", catalogue, general__name="reranker")
    put(tmp_path / "0123456789abcdef/placed.gguf", catalogue)  # ours
    put(tmp_path / "a/b/c/d/deep.gguf", catalogue)
    found = found_models(catalogue, tmp_path, [])
    assert found.entries == {}
    assert {Path(path).name for path in found.passed_over} == {
        "text.gguf", "hostile.gguf", "gone.gguf", "part-00001-of-00002.gguf", "bge-reranker.gguf",
    }  # fmt: skip
    assert all(found.passed_over.values())
    assert found_models(catalogue, tmp_path, []) == found


def test_files_of_one_model_are_one_model(catalogue: Catalogue, tmp_path: Path) -> None:
    put(tmp_path / "m-Q8_0.gguf", catalogue, "Q8_0", general__name="M")
    first = put(tmp_path / "m-Q4_K_M.gguf", catalogue, "Q4_K_M", general__name="M")
    (tmp_path / "same.gguf").hardlink_to(first)
    (entry,) = found_models(catalogue, tmp_path, []).entries.values()
    assert list(entry.quantisations) == ["Q4_K_M", "Q8_0"]


def test_other_models_of_one_name_and_the_catalogues_own_files(catalogue: Catalogue, tmp_path: Path) -> None:
    file = catalogue.get("smollm2-135m-instruct").file
    with (tmp_path / file.name).open("wb") as stream:
        stream.truncate(file.bytes)
    put(tmp_path / "a/m.gguf", catalogue, general__name="one")
    put(tmp_path / "b/m.gguf", catalogue, general__name="another")
    assert list(found_models(catalogue, tmp_path, []).entries) == ["file-m", "file-m-2"]


@pytest.mark.parametrize("text", ["", "[]", '{"folders": 3, "files": []}', '{"folders": [], "files": {"x": 3}}'])
def test_a_spoilt_memo_is_made_anew(text: str, catalogue: Catalogue, tmp_path: Path) -> None:
    file = put(tmp_path / "m.gguf", catalogue)
    (tmp_path / MEMO_NAME).write_text(text)
    assert list(found_models(catalogue, tmp_path).entries) == ["file-m"]
    info = file.stat()
    bad = {"folders": [], "files": {str(file): [info.st_size, info.st_mtime_ns, {"title": 3}, ""]}}
    (tmp_path / MEMO_NAME).write_text(json.dumps(bad))
    (entry,) = found_models(catalogue, tmp_path).entries.values()
    assert listed_entry(entry)["title"] == "m"


def test_a_folder_with_too_much_is_left_and_said(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(present, "MAX_ENTRIES", 3)
    for number in range(4):
        put(tmp_path / f"m{number}.gguf", catalogue)
    found = found_models(catalogue, tmp_path, [])
    assert found.entries == {}
    assert "not looked at" in found.passed_over[str(tmp_path)]
