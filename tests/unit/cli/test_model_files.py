"""`roost models show`, `pull` and `gc`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from roost.cli import model_files
from roost.models import hub as hubs
from roost.models.lock_file import read_locks
from roost.ops.errors import RoostError
from tests.support.hub_server import COMMIT, FILE, REPOSITORY, hub
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import MODEL, Installation

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def catalogue(site: Installation) -> Path:
    """Give the installation a catalogue of three tiny models; the slot serves the one called `MODEL`."""
    origin = site.folder / "origin"
    origin.mkdir()
    models: dict[str, Any] = {}
    for name in (MODEL, "idle"):
        content = name.encode()
        (origin / f"{name}.gguf").write_bytes(content)
        file = {"name": f"{name}.gguf", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        models[name] = {"quantisations": {"Q8_0": {"file": file, "sources": [{"kind": "path", "path": str(origin)}]}}}
    source = {"kind": "hub", "repository": REPOSITORY, "file": FILE}
    models["hubbed"] = {"quantisations": {"Q4_K_M": {"file": {"name": "hubbed.gguf"}, "sources": [source]}}}
    common = {
        "title": "Tiny", "licence": "CC0-1.0", "architecture": "llama", "parameters": {"total": 1, "active": 1},
        "context_length": 128, "roles": {"main": 10}, "tier": "potato",
    }  # fmt: skip
    path = site.folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {name: {**common, **model} for name, model in models.items()}}))
    found = json.loads(site.site_file.read_text())
    site.site_file.write_text(json.dumps({**found, "catalogue": str(path)}))
    return path


def error(done: Result) -> RoostError:
    assert isinstance(done.exception, RoostError)
    return done.exception


@pytest.mark.usefixtures("catalogue")
def test_pull_then_nothing_to_do(site: Installation, roost: Run) -> None:
    done = roost("models", "pull", MODEL, "idle", "--json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [(row["name"], row["changed"], row["source"]) for row in rows] == [
        (f"{MODEL}:Q8_0", True, str(site.folder / "origin")),
        ("idle:Q8_0", True, str(site.folder / "origin")),
    ]
    assert [Path(row["path"]).read_bytes() for row in rows] == [MODEL.encode(), b"idle"]
    again = roost("models", "pull", MODEL)
    assert again.stdout.strip().endswith("was here already.")
    assert json.loads(roost("models", "show", MODEL, "--json").stdout)["state"] == "verified"


@pytest.mark.usefixtures("catalogue")
def test_a_model_of_a_hub_is_locked_by_pull(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "get_token", lambda: None)
    monkeypatch.delenv("HTTP_PROXY")
    rows = {row["name"]: row for row in json.loads(roost("models", "--json").stdout)}
    assert (rows["hubbed"]["file"], rows["hubbed"]["size"], rows["hubbed"]["path"]) == ("not locked", None, None)
    assert "hubbed" in roost("models").stdout
    assert json.loads(roost("models", "show", "hubbed", "--json").stdout)["sha256"] is None
    assert "roost models pull hubbed" in error(roost("models", "verify", "hubbed")).fix
    with hub(CONTENT) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.hub_url)
        (row,) = json.loads(roost("models", "pull", "hubbed", "--json").stdout)
    assert Path(row["path"]).read_bytes() == CONTENT
    assert read_locks(site.folder / "models.lock.yaml")["hubbed:Q4_K_M"].sha256 == SHA256
    shown = json.loads(roost("models", "show", "hubbed", "--json").stdout)
    assert (shown["sha256"], shown["state"], shown["locked_commit"]) == (SHA256, "verified", COMMIT)
    assert roost("models", "verify", "hubbed").exit_code == 0


@pytest.mark.usefixtures("catalogue")
def test_show_for_people(roost: Run) -> None:
    shown = roost("models", "show", "idle").stdout
    assert "CC0-1.0" in shown
    assert "idle.gguf" in shown
    assert "missing" in shown
    assert "locked commit" not in shown


@pytest.mark.usefixtures("catalogue")
def test_gc_lists_first_and_removes_when_told(roost: Run) -> None:
    assert roost("models", "gc").stdout == "Nothing to remove.\n"
    rows = json.loads(roost("models", "pull", MODEL, "idle", "--json").stdout)
    served, idle = (Path(row["path"]) for row in rows)
    listed = json.loads(roost("models", "gc", "--json").stdout)
    assert (listed["removed"], listed["bytes"]) == (False, len("idle"))
    assert str(idle) in [file["path"] for file in listed["files"]]
    assert "sudo roost models gc --yes" in roost("models", "gc").stdout
    assert idle.exists()
    assert roost("models", "gc", "--yes").stdout.endswith("4 B freed.\n")
    assert (served.exists(), idle.exists(), idle.parent.exists()) == (True, False, False)


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("words", [("pull", "gpt"), ("show", "gpt"), ("pull", MODEL, "gpt")])
def test_unknown_models(site: Installation, roost: Run, words: tuple[str, ...]) -> None:
    assert "has no model 'gpt'" in error(roost("models", *words)).message
    assert not list((site.folder / "models").iterdir())


def test_gc_keeps_all_when_it_is_not_known_what_is_needed(site: Installation, catalogue: Path, roost: Run) -> None:
    catalogue.write_text(catalogue.read_text().replace(MODEL, "renamed"))
    assert "has no model" in error(roost("models", "gc", "--yes")).message
    assert site.folder.exists()


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("words", [("pull", "idle"), ("gc", "--yes")])
def test_only_root_may_change_files(roost: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    def forbidden(*_words: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/roost/models/.lock")

    monkeypatch.setattr(model_files, "ensure_models", forbidden)
    monkeypatch.setattr(model_files, "remove", forbidden)
    found = error(roost("models", *words))
    assert found.exit_code == 4
    assert "sudo" in found.fix


@pytest.mark.parametrize("verb", ["show", "pull", "gc"])
def test_help_has_an_example(roost: Run, verb: str) -> None:
    done = roost("models", verb, "--help")
    assert done.exit_code == 0
    assert f"roost models {verb}" in done.stdout.split("Example:")[1]
