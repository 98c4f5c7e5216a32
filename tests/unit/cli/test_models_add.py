"""`roost models add` and `remove`: files, addresses and repositories, from the command line to models_custom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from roost.models import hub as hubs
from roost.models.catalogue import load_catalogue
from roost.models.estimate.shape import header_of_shape
from roost.ops.errors import RoostError
from tests.support.gguf_files import header_bytes, write_sparse
from tests.support.hub_server import FILE, REPOSITORY, HubState, hub
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import CATALOGUE, MODEL, Installation

SHAPE = {
    "block_count": 2, "context_length": 4096, "embedding_length": 64, "feed_forward_length": 128,
    "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5,
    "vocab_size": 256, "tied_embeddings": False,
}  # fmt: skip
MADE = header_of_shape("llama", SHAPE, "Q8_0")
HEADER = replace(
    MADE, metadata={**MADE.metadata, "general.name": "Tiny Coder", "general.license": "mit", "general.file_type": 7}
)
CONTENT = header_bytes(HEADER, {}) + bytes(range(256)) * 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_sparse(HEADER, path)
    return path


def host_file(site: Installation) -> Path:
    return site.folder / "host.yaml"


def custom(site: Installation) -> dict[str, object]:
    listed = yaml.safe_load(host_file(site).read_text())["models_custom"]
    assert yaml.safe_load((site.folder / "models.custom.yaml").read_text()) == {"models": listed}
    return dict(listed)


def answer(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def error(done: Result) -> RoostError:
    assert isinstance(done.exception, RoostError), done.output
    return done.exception


def test_a_file_that_lies_there_is_listed_as_found_and_planned(site: Installation, roost: Run, file: Path) -> None:
    models_dir = site.folder / "models"
    models_dir.mkdir(exist_ok=True)
    (models_dir / "mine-instruct.gguf").hardlink_to(file)
    (models_dir / "bad.gguf").write_text("no model")
    rows = {row["name"]: row for row in json.loads(roost("models", "list", "--json").stdout)}
    row = rows["file-mine-instruct"]
    assert (row["file"], row["path"]) == ("found", str(models_dir / "mine-instruct.gguf"))
    assert f"{models_dir / 'bad.gguf'}: passed over, This is not" in roost("models").stdout
    (site.folder / "host.yaml").write_text("model_slots: [{slot: main, model: file-mine-instruct}]\n")
    (placed,) = json.loads(roost("plan", "--json").stdout)["placed"]
    assert placed["model"] == "file-mine-instruct"
    assert not list(models_dir.glob(".*"))  # looking writes nothing


def test_a_file_is_added_listed_pulled_and_removed(site: Installation, roost: Run, file: Path) -> None:
    dry = answer(roost("models", "add", str(file), "--dry-run", "--json"))
    assert (dry["name"], dry["quantisation"], dry["added"]) == ("tiny-coder", "Q8_0", False)
    assert not host_file(site).exists()
    done = answer(roost("models", "add", str(file), "--json"))
    assert done == {**dry, "added": True}
    assert done["guessed"] == ["name tiny-coder", "roles coding 70, specialist 50, main 20"]
    assert done["memory_bytes"] > 96 << 20
    listed = done["entry"]["quantisations"]["Q8_0"]
    assert listed["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert custom(site) == {"tiny-coder": done["entry"]}
    rows = {row["name"]: row for row in json.loads(roost("models", "list", "--json").stdout)}
    assert (rows["tiny-coder"]["custom"], rows["tiny-coder"]["file"], rows[MODEL]["custom"]) == (True, "missing", False)
    (row,) = json.loads(roost("models", "pull", "tiny-coder", "--json").stdout)
    assert Path(row["path"]).read_bytes() == file.read_bytes()
    assert "tiny-coder" in roost("models", "show", "tiny-coder").stdout
    again = roost("models", "remove", "tiny-coder", "--dry-run")
    assert "would be removed" in again.stdout
    assert list(custom(site)) == ["tiny-coder"]
    assert "was removed" in roost("models", "remove", "tiny-coder").stdout
    assert "models_custom" not in host_file(site).read_text()
    assert "has no model 'tiny-coder'" in error(roost("models", "show", "tiny-coder")).message


def test_what_the_user_says_is_taken(site: Installation, roost: Run, file: Path) -> None:
    host_file(site).write_text("api_port: 9000\n")
    done = roost(
        "models", "add", str(file), "--name", "mine", "--role", "router=70", "--role", "main", "--sha256", "A" * 64
    )
    assert "mine:Q8_0 was added" in done.stdout
    assert "Guessed" not in done.stdout
    entry = load_catalogue(CATALOGUE, custom=custom(site)).entries["mine"]
    assert entry.roles == {"router": 70, "main": 60}
    assert entry.quantisations["Q8_0"].file.sha256 == "a" * 64
    assert yaml.safe_load(host_file(site).read_text())["api_port"] == 9000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, site: Installation) -> Iterator[HubState]:
    assert site.folder.exists()  # it has set the environment
    monkeypatch.setattr(hubs, "get_token", lambda: None)
    monkeypatch.delenv("HTTP_PROXY")
    with hub(CONTENT) as state:
        monkeypatch.setenv("HF_ENDPOINT", state.hub_url)
        yield state


@pytest.mark.parametrize("quantisation", ["", ":Q4_K_M", ":q4_k_m", f":{FILE}"])
def test_a_repository_is_added_without_downloading_it(
    site: Installation, roost: Run, server: HubState, quantisation: str
) -> None:
    server.others = {"tiny-mmproj-F16.gguf": b"projector", "tiny.Q8_0.gguf": b"other", "README.md": b""}
    done = answer(roost("models", "add", f"hf:{REPOSITORY}{quantisation}", "--json"))
    assert (done["name"], done["quantisation"]) == ("tiny-coder", "Q4_K_M")
    assert done["entry"]["projector"]["sources"][0]["file"] == "tiny-mmproj-F16.gguf"
    assert done["entry"]["quantisations"]["Q4_K_M"] == {
        "file": {"name": FILE}, "sources": [{"kind": "hub", "repository": REPOSITORY, "file": FILE}],
    }  # fmt: skip
    rows = json.loads(roost("models", "pull", "tiny-coder", "--json").stdout)
    assert [row["name"] for row in rows] == ["tiny-coder:Q4_K_M", "tiny-coder:projector"]
    assert Path(rows[0]["path"]).read_bytes() == CONTENT
    assert custom(site) == {"tiny-coder": done["entry"]}


@pytest.mark.parametrize("projector", [False, True])
def test_a_name_that_could_not_be_read_again_is_not_kept(
    site: Installation, roost: Run, server: HubState, *, projector: bool
) -> None:
    """Else every later command would fail on what stands in host.yaml."""
    odd = "tiny (v2) {{ x }} mmproj-F16.gguf" if projector else "tiny (v2) {{ x }}.Q8_0.gguf"
    server.others = {odd: CONTENT}
    done = roost("models", "add", f"hf:{REPOSITORY}" + ("" if projector else ":Q8_0"), "--name", "mine")
    assert "cannot be written as an entry: file" in error(done).message
    assert not host_file(site).exists()


def test_an_address_of_the_hub_is_its_repository(roost: Run, server: HubState) -> None:
    address = f"{server.hub_url}/{REPOSITORY}/resolve/main/{FILE}"
    done = answer(roost("models", "add", address, "--dry-run", "--json"))
    assert done["entry"]["quantisations"]["Q4_K_M"]["sources"][0]["kind"] == "hub"


@pytest.mark.usefixtures("site")
def test_a_plain_address_is_downloaded_once_for_its_hash(roost: Run, server: HubState) -> None:
    address = f"{server.storage_url}/storage/main/{FILE}"
    dry = answer(roost("models", "add", address, "--dry-run", "--json"))
    assert "sha256" not in dry["entry"]["quantisations"]["Q4_K_M"]["file"]
    assert sum(sent.count for sent in server.sent) <= len(CONTENT) + 1
    done = answer(roost("models", "add", address, "--json"))
    assert done["entry"]["quantisations"]["Q4_K_M"]["file"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    server.sent.clear()
    (row,) = json.loads(roost("models", "pull", "tiny-coder", "--json").stdout)
    assert (row["source"].split(" /")[0], server.sent) == ("the cache", [])
    assert Path(row["path"]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("hf:tiny/none",), "has no repository tiny/none", 1),
        ((f"hf:{REPOSITORY}:Q2_K",), "no GGUF file in the quantisation 'Q2_K'", 1),
        (("hf:tiny",), "is not hf:OWNER/NAME[:QUANT]", 2),
        (("/nowhere/x.gguf",), "There is no file /nowhere/x.gguf", 1),
        ((str(CATALOGUE),), "not a usable GGUF file", 1),
        ((f"hf:{REPOSITORY}", "--role", "boss"), "'boss' is not ROLE", 2),
        ((f"hf:{REPOSITORY}", "--role", "main=200"), "'main=200' is not ROLE", 2),
        ((f"hf:{REPOSITORY}", "--name", "My Model"), "'My Model' cannot be a name", 2),
        ((f"hf:{REPOSITORY}", "--name", MODEL), f"has a model called {MODEL} already", 1),
        ((f"hf:{REPOSITORY}", "--sha256", "12"), "'12' is not a SHA-256", 2),
    ],
)
@pytest.mark.usefixtures("server")
def test_what_cannot_be_added(site: Installation, roost: Run, words: tuple[str, ...], said: str, code: int) -> None:
    found = error(roost("models", "add", *words))
    assert said in found.message
    assert (found.exit_code, bool(found.fix)) == (code, True)
    assert not host_file(site).exists()


def test_what_cannot_be_removed(site: Installation, roost: Run, file: Path) -> None:
    assert "belongs to the catalogue" in error(roost("models", "remove", MODEL)).message
    assert "Did you mean" in error(roost("models", "remove", "smollm")).fix
    roost("models", "add", str(file))
    text = (site.folder / "models.custom.yaml").read_text()
    host_file(site).write_text("api_port: 9000\n")  # then it is the inventory's
    assert "comes from the inventory" in error(roost("models", "remove", "tiny-coder")).message
    assert (site.folder / "models.custom.yaml").read_text() == text
    found = json.loads(site.site_file.read_text())
    found["slots"][0]["model"] = "tiny-coder:Q8_0"
    site.site_file.write_text(json.dumps(found))
    assert "is served as main" in error(roost("models", "remove", "tiny-coder")).message


@pytest.mark.usefixtures("site")
def test_only_root_may_add(roost: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_words: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", "/etc/roost/host.yaml")

    monkeypatch.setattr("roost.models.custom_file.write_atomic", forbidden)
    found = error(roost("models", "add", str(file)))
    assert (found.exit_code, "sudo" in found.fix) == (4, True)


@pytest.mark.parametrize("verb", ["add", "remove", "list"])
def test_help_has_an_example(roost: Run, verb: str) -> None:
    assert f"roost models {verb}" in roost("models", verb, "--help").stdout.split("Example:")[1]
