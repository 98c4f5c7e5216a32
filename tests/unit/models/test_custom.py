"""What a header says of a user's own model, as an entry of models_custom."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from roost.models.catalogue import load_catalogue, parse_custom
from roost.models.custom import (
    Added,
    choose_file,
    choose_projector,
    entry_of,
    name_of,
    named_quantisation,
    tier_of_bytes,
    with_quantisation,
)
from roost.models.custom_file import change_custom, custom_text, listed_entry
from roost.models.estimate.shape import header_of_shape
from roost.models.gguf_header import Header, Skipped, Value
from roost.models.schema import ListedDownload, ListedEntry, ListedFile
from roost.models.source_types import HubSource, Source, UrlSource
from roost.ops.errors import RoostError

SHIPPED = load_catalogue(Path(__file__).parents[3] / "group_vars/models.yaml", custom={})
FILE = ListedDownload(
    file=ListedFile(name="My.Model-Q4_K_M.gguf"), sources=[HubSource(kind="hub", repository="a/b", file="c.gguf")]
)


def header(name: str, **more: Value) -> Header:
    """Return the header that a model of the catalogue would have, with more metadata."""
    listed = SHIPPED.listed(name)
    made = header_of_shape(listed.architecture, listed.shape, "Q4_K_M")
    return replace(made, metadata={**made.metadata, **{key.replace("__", "."): item for key, item in more.items()}})


def added(model: str = "qwen3-8b", /, **more: Value) -> Added:
    return entry_of(header(model, **more), FILE)


def shaped() -> list[str]:
    return [name for name, entry in SHIPPED.entries.items() if entry.shape]


@pytest.mark.parametrize("name", shaped())
def test_the_entry_of_a_header_is_that_of_the_catalogue(name: str) -> None:
    listed = SHIPPED.entries[name]
    found = entry_of(header(name, general__name=listed.title, general__license=listed.licence), FILE)
    assert name_of(found.entry.title) == found.name
    for part in ("title", "licence", "architecture", "parameters", "context_length", "shape"):
        assert getattr(found.entry, part) == getattr(listed, part), part
    assert found.quantisation == "Q4_K_M"
    again = parse_custom({found.name: yaml.safe_load(yaml.safe_dump(listed_entry(found.entry)))})
    assert again == {found.name: found.entry}


def test_what_is_guessed_is_said() -> None:
    found = added(general__name="Qwen3 Coder 8B", tokenizer__chat_template="{{ tools }}")
    assert found.name == "qwen3-coder-8b"
    assert found.guessed == (
        "name qwen3-coder-8b",
        "roles coding 70, specialist 50, main 20, router 35",
        "licence unknown",
    )
    said = entry_of(header("qwen3-8b", general__license="mit"), FILE, name="mine", roles={"router": 7})
    assert (said.name, said.entry.roles, said.entry.licence, said.guessed) == ("mine", {"router": 7}, "mit", ())


def test_without_a_name_in_the_header_that_of_the_file_counts() -> None:
    assert added().name == "my.model"


def test_the_vocabulary_is_counted_where_no_key_says_it() -> None:
    made = header("qwen3-8b")
    metadata = {key: value for key, value in made.metadata.items() if not key.endswith("vocab_size")}
    counted = replace(made, metadata={**metadata, "tokenizer.ggml.tokens": Skipped(151936)})
    assert entry_of(counted, FILE).entry.shape["vocab_size"] == 151936
    assert entry_of(replace(made, metadata=metadata), FILE).entry.shape == {}


@pytest.mark.parametrize("more", [{"general__type": "mmproj"}, {"general__architecture": "clip"}])
def test_what_is_no_language_model_is_refused(more: dict[str, Value]) -> None:
    with pytest.raises(RoostError, match="holds no language model"):
        added(**more)


@pytest.mark.parametrize(
    ("file", "quantisation"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("nanbeige4.1-3b-q8_0.gguf", "Q8_0"),
        ("x.i1-IQ4_XS.gguf", "IQ4_XS"),
        ("Qwen3-Coder-Next-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4"),
        ("model-bf16.gguf", "BF16"),
        ("Q8-rocket.gguf", "Q8"),
        ("plain.gguf", ""),
    ],
)
def test_quantisations_in_file_names(file: str, quantisation: str) -> None:
    assert named_quantisation(file) == quantisation


def test_the_header_says_it_where_the_name_does_not() -> None:
    plain = FILE.model_copy(update={"file": ListedFile(name="plain.gguf")})
    assert entry_of(header("qwen3-8b", general__file_type=7), plain).quantisation == "Q8_0"
    assert entry_of(header("qwen3-8b"), plain).quantisation == "Q4_K"  # the type of most of its weights


FILES = [
    "README.md", "mmproj-BF16.gguf", "mmproj-F16.gguf", "M-Q8_0.gguf", "M-Q4_K_M.gguf",
    "UD-Q6_K/M-UD-Q6_K-00001-of-00002.gguf", "UD-Q6_K/M-UD-Q6_K-00002-of-00002.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "file"),
    [
        ("", "M-Q4_K_M.gguf"),
        ("q8_0", "M-Q8_0.gguf"),
        ("M-Q8_0.gguf", "M-Q8_0.gguf"),
        ("UD-Q6_K", "UD-Q6_K/M-UD-Q6_K-00001-of-00002.gguf"),
    ],
)
def test_a_file_of_a_repository(wanted: str, file: str) -> None:
    assert choose_file(FILES, wanted) == file
    assert choose_projector(FILES) == "mmproj-F16.gguf"


def test_a_repository_without_what_is_wanted_says_what_it_has() -> None:
    with pytest.raises(RoostError) as caught:
        choose_file(FILES, "Q2_K")
    assert caught.value.fix == "It has: Q4_K_M, Q8_0, UD-Q6_K."
    with pytest.raises(RoostError, match="has no GGUF file"):
        choose_file(["README.md"], "")


@pytest.mark.parametrize(
    ("gib", "tier"), [(0.5, "embedded"), (2, "potato"), (5, "potato"), (5.1, "sweet"), (18, "power"), (90, "beast")]
)
def test_tiers(gib: float, tier: str) -> None:
    assert tier_of_bytes(int(gib * (1 << 30))) == tier


def test_a_second_quantisation_joins_the_first_and_another_model_does_not() -> None:
    first = added()
    second = replace(first, quantisation="Q8_0", entry=first.entry.model_copy(update={"quantisations": {"Q8_0": FILE}}))
    assert list(with_quantisation(first.entry, second).quantisations) == ["Q4_K_M", "Q8_0"]
    with pytest.raises(RoostError, match=r"another model called my\.model"):
        with_quantisation(first.entry, added("qwen3-4b-instruct-2507"))


def test_host_yaml_keeps_its_text_and_both_files_agree(tmp_path: Path) -> None:
    host = tmp_path / "host.yaml"
    host.write_text("---\n# mine\napi_port: 9000\n")
    entry = added().entry
    change_custom(host, lambda before: {**before, "mine": entry}, dry_run=True)
    assert not (tmp_path / "models.custom.yaml").exists()
    change_custom(host, lambda before: {**before, "mine": entry})
    assert host.read_text().startswith("---\n# mine\napi_port: 9000\n")
    assert (host.stat().st_mode & 0o777, (tmp_path / "models.custom.yaml").stat().st_mode & 0o777) == (0o600, 0o644)
    assert parse_custom(yaml.safe_load(host.read_text())["models_custom"]) == {"mine": entry}
    assert parse_custom(yaml.safe_load((tmp_path / "models.custom.yaml").read_text())["models"]) == {"mine": entry}
    theirs = {"theirs": listed_entry(entry), "mine": listed_entry(entry)}
    (tmp_path / "models.custom.yaml").write_text(custom_text(theirs))  # as the playbook does
    change_custom(host, lambda _before: {})
    assert yaml.safe_load((tmp_path / "models.custom.yaml").read_text()) == {"models": {"theirs": theirs["theirs"]}}
    assert host.read_text() == "---\n# mine\napi_port: 9000\n"


def test_the_playbook_writes_the_same_text() -> None:
    """Else a run after `roost models add` would report a change."""
    to_nice_yaml = import_module("ansible.plugins.filter.core").to_nice_yaml  # it has no types
    listed: dict[str, object] = {"mine": listed_entry(added(general__name="Ünïcode: a # name").entry)}
    template = Path(__file__).parents[3] / "ansible/roles/layout/templates/etc/roost/models.custom.yaml.j2"
    head = template.read_text().split("{{", maxsplit=1)[0]
    assert custom_text(listed) == head + to_nice_yaml({"models": listed}, indent=2, sort_keys=False)
    assert custom_text({}) == head + to_nice_yaml({"models": {}}, indent=2, sort_keys=False)


def test_entries_of_the_shipped_catalogue_survive_being_written() -> None:
    for name, entry in SHIPPED.entries.items():
        again: dict[str, ListedEntry] = parse_custom({name: yaml.safe_load(yaml.safe_dump(listed_entry(entry)))})
        assert again[name] == entry


HOSTILE = "Nice \x1b]0;gone\x07 {{ lookup('pipe', 'id') }} {% raw %} {# x #} \u202emodel " + "x" * 999


def test_texts_of_strangers_are_no_templates_and_no_commands_to_a_terminal(tmp_path: Path) -> None:
    """host.yaml is read by Ansible, as root: what stands there in double braces is run."""
    more = {"general.name": HOSTILE, "general.license": HOSTILE}
    made = header("qwen3-8b")
    odd: dict[str, Value] = {"qwen3.rope.type": HOSTILE, "qwen3.{{ x }}": 1, "qwen3.rope.scaling.type": "yarn"}
    found = entry_of(replace(made, metadata={**made.metadata, **more, **odd}), FILE).entry
    assert found.title.startswith("Nice ]0;gone lookup('pipe', 'id')")
    assert len(found.title) <= 120
    assert {"rope.type", "{{ x }}"}.isdisjoint(found.shape)
    assert found.shape["rope.scaling.type"] == "yarn"
    host = tmp_path / "host.yaml"
    change_custom(host, lambda before: {**before, "mine": found})
    assert not any(mark in host.read_text() for mark in ("{{", "{%", "{#", "\x1b", "\u202e"))


def test_what_ansible_would_run_is_not_written(tmp_path: Path) -> None:
    host = tmp_path / "host.yaml"
    sources: list[Source] = [UrlSource(kind="url", url="https://models.example/{{lookup('pipe','id')}}/x.gguf")]
    file = ListedFile(name="x.gguf", bytes=1, sha256="0" * 64)
    entry = added().entry.model_copy(update={"quantisations": {"Q8_0": ListedDownload(file=file, sources=sources)}})
    with pytest.raises(RoostError, match=r"mine.*would be read as a template"):
        change_custom(host, lambda before: {**before, "mine": entry})
    assert not host.exists()
    mine = "models_custom: " + json.dumps({"mine": listed_entry(entry)}) + "\n"
    host.write_text(mine)  # who writes it by hand means it
    change_custom(host, lambda before: {**before, "other": added().entry})
    assert set(yaml.safe_load(host.read_text())["models_custom"]) == {"mine", "other"}
