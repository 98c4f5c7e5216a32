"""A slot that names a file on the host needs no entry of the catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roost.models import path_slots
from roost.models.catalogue import load_catalogue
from roost.models.estimate.header import HeaderEstimator
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.shape import header_of_shape
from roost.models.model_slots import ModelSlot
from roost.models.path_slots import MEMO_NAME, entries_of_paths, with_paths
from roost.ops.errors import RoostError
from roost.ops.files import sha256_file
from tests.support.gguf_files import write_sparse

SHIPPED = Path(__file__).parents[3] / "group_vars/models.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    listed = load_catalogue(SHIPPED, custom={}).listed("smollm2-135m-instruct")
    path = tmp_path / "SmolLM2-135M-Instruct.Q4_K_M.gguf"
    write_sparse(header_of_shape(listed.architecture, listed.shape, "Q4_K_M"), path)
    return path


def test_a_file_becomes_a_model_and_is_hashed_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def noted(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(path_slots, "sha256_file", noted)
    slots = [ModelSlot(slot="main", path=str(file)), ModelSlot(slot="router"), ModelSlot(slot="b", path=str(file))]
    assert entries_of_paths(slots, {}, tmp_path, dry_run=True).keys() == {"file-smollm2-135m-instruct.q4_k_m"}
    assert not (tmp_path / MEMO_NAME).exists()
    found: Any = entries_of_paths(slots, {}, tmp_path)
    again = entries_of_paths(slots, {}, tmp_path)
    assert (again, len(hashed)) == (found, 2)
    model = load_catalogue(SHIPPED, custom=found).get("file-smollm2-135m-instruct.q4_k_m")
    assert (model.quantisation, model.bytes, model.file.sha256) == ("Q4_K_M", file.stat().st_size, sha256_file(file))
    assert [str(source) for source in model.sources] == [str(file)]
    assert model.shape["block_count"] == 30
    with file.open("ab") as stream:
        stream.write(b"more")
    assert entries_of_paths(slots, {}, tmp_path) != found
    assert len(hashed) == 3
    assert list(json.loads((tmp_path / MEMO_NAME).read_text())) == [str(file)]


def test_what_was_added_by_hand_stays(file: Path, tmp_path: Path) -> None:
    slots = [ModelSlot(slot="main", path=str(file))]
    mine = {"mine": next(iter(entries_of_paths(slots, {}, tmp_path).values()))}
    assert entries_of_paths(slots, mine, tmp_path) == mine
    assert entries_of_paths([ModelSlot(slot="main")], mine, tmp_path) == mine


def test_files_of_one_name_in_two_folders_are_two_models(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_bytes(file.read_bytes() + b"more")
    slots = [ModelSlot(slot="main", path=str(file)), ModelSlot(slot="router", path=str(other))]
    found = entries_of_paths(slots, {}, tmp_path)
    assert len(found) == 2
    assert entries_of_paths(slots, {}, tmp_path) == found
    catalogue = with_paths(load_catalogue(SHIPPED, custom={}), [str(file), str(other)], tmp_path)
    assert set(found) <= set(catalogue.entries)


def test_to_plan_with_a_file_nothing_is_hashed(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_slots, "sha256_file", lambda _path: pytest.fail("hashed"))
    shipped = load_catalogue(SHIPPED, custom={})
    planned = with_paths(shipped, [str(file)], tmp_path)
    (name,) = set(planned.entries) - set(shipped.entries)
    assert with_paths(planned, [str(file)], tmp_path) is planned
    assert HeaderEstimator(CatalogueHeaders(planned)).layers(name, "Q4_K_M") == 31


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model, " * 1000])
def test_what_is_no_model_is_refused_before_it_is_hashed(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_slots, "sha256_file", lambda _path: pytest.fail("hashed"))
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content)
    with pytest.raises(RoostError, match=r"bad\.gguf") as caught:
        entries_of_paths([ModelSlot(slot="main", path=str(bad))], {}, tmp_path)
    assert caught.value.fix


def test_a_file_that_cannot_be_read_is_said_with_the_reason(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(path_slots, "sha256_file", refused)
    with pytest.raises(RoostError, match="cannot be read: Permission denied"):
        entries_of_paths([ModelSlot(slot="main", path=str(file))], {}, tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match=r"names the file /nowhere/x\.gguf, which is not there") as caught:
        entries_of_paths([ModelSlot(slot="main", path="/nowhere/x.gguf")], {}, tmp_path)
    assert caught.value.fix
