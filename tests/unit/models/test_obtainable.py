"""Which models can be had on a machine as it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.obtainable import Obtainable, Reach, files_here
from roost.models.store import FILE_MODE, model_path, write_stamp

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB = {"kind": "hub", "repository": "a/b", "file": "x.gguf"}
URL = {"kind": "url", "url": "http://127.0.0.1:9/x.gguf"}
COMMON: dict[str, object] = {
    "title": "Tiny", "licence": "CC0-1.0", "architecture": "llama", "parameters": {"total": 1, "active": 1},
    "context_length": 128, "roles": {"main": 10}, "tier": "potato",
}  # fmt: skip


def make(tmp_path: Path, sources: list[dict[str, Any]], **more: object) -> Catalogue:
    known = {} if sources == [HUB] else {"bytes": len(CONTENT), "sha256": SHA256}
    file: dict[str, object] = {"name": "x.gguf", **known}
    entry: dict[str, object] = {**COMMON, **more, "quantisations": {"Q8_0": {"file": file, "sources": sources}}}
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {"tiny": entry}}))
    return load_catalogue(path, tmp_path / "lock", custom={})


def why(catalogue: Catalogue, reach: Reach) -> str:
    problem = Obtainable(catalogue, reach).why_not(catalogue.listed("tiny"))
    assert problem is None or problem.remedy
    return problem.reason if problem else ""


def path_source(path: Path) -> dict[str, Any]:
    return {"kind": "path", "path": str(path)}


def test_a_model_of_a_hub_needs_one(tmp_path: Path) -> None:
    catalogue = make(tmp_path, [HUB])
    assert why(catalogue, Reach()) == ""
    assert "no route" in why(catalogue, Reach(hub_problem="no route"))
    source = Obtainable(catalogue, Reach()).hub_source()
    assert source is not None
    assert source.repository == "a/b"
    assert Obtainable(catalogue, Reach()).download_bytes(catalogue.listed("tiny")) is None


def test_another_source_will_do(tmp_path: Path) -> None:
    catalogue = make(tmp_path, [HUB, URL])
    assert why(catalogue, Reach(hub_problem="no route")) == ""
    assert Obtainable(catalogue, Reach()).hub_source() is None
    assert Obtainable(catalogue, Reach()).download_bytes(catalogue.listed("tiny")) == len(CONTENT)


def test_a_projector_that_only_a_hub_has_counts(tmp_path: Path) -> None:
    projector = {"file": {"name": "mmproj.gguf", "bytes": 5}, "sources": [HUB]}
    catalogue = make(tmp_path, [URL], projector=projector)
    assert "no route" in why(catalogue, Reach(hub_problem="no route"))
    assert Obtainable(catalogue, Reach()).download_bytes(catalogue.listed("tiny")) == len(CONTENT) + 5


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = make(tmp_path, [path_source(tmp_path / "gone")])
    assert "does not exist" in why(gone, Reach())
    with_hub = make(tmp_path, [path_source(tmp_path / "gone"), HUB])
    assert "no route" in why(with_hub, Reach(hub_problem="no route"))
    assert why(with_hub, Reach()) == ""


def test_an_offline_folder_shuts_out_the_network(tmp_path: Path) -> None:
    catalogue = make(tmp_path, [URL])
    offline = tmp_path / "offline"
    offline.mkdir()
    assert "does not hold it" in why(catalogue, Reach(offline_dir=offline))
    (offline / "x.gguf").write_bytes(CONTENT)
    assert why(catalogue, Reach(offline_dir=offline)) == ""
    hubbed = make(tmp_path, [HUB])
    assert "does not hold it" in why(hubbed, Reach(offline_dir=offline))
    assert Obtainable(hubbed, Reach(offline_dir=offline)).hub_source() is None


@pytest.mark.parametrize("where", ["models", "cache"])
def test_what_lies_here_needs_nothing(tmp_path: Path, where: str) -> None:
    catalogue = make(tmp_path, [path_source(tmp_path / "gone")])
    (file,) = set(catalogue.known_files().values())
    models, cache = tmp_path / "models", tmp_path / "cache"
    assert files_here(models, cache, catalogue) == frozenset()
    path = model_path(models, file) if where == "models" else cache / "models" / file.sha256
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    if where == "models":
        write_stamp(path, file.sha256)
        path.chmod(FILE_MODE)
    here = files_here(models, cache, catalogue)
    assert here == {SHA256}
    assert why(catalogue, Reach(here)) == ""
    assert Obtainable(catalogue, Reach(here)).download_bytes(catalogue.listed("tiny")) == 0
    path.chmod(0o644)
    path.write_bytes(b"other")
    assert files_here(models, cache, catalogue) == frozenset()
