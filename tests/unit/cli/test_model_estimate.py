"""`roost models estimate`: a model of the catalogue, a file, mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from roost.models.catalogue import load_catalogue
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.measured import MeasuredKey, MeasuredStore
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.ops.errors import RoostError
from tests.support.gguf_files import write_sparse
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation

CATALOGUE = Path(__file__).parents[3] / "group_vars" / "models.yaml"


@pytest.fixture
def catalogue(site: Installation) -> Path:
    """Give the installation the shipped catalogue."""
    place = site.folder / "shipped.yaml"
    shutil.copyfile(CATALOGUE, place)
    found = json.loads(site.site_file.read_text())
    site.site_file.write_text(json.dumps({**found, "catalogue": str(place)}))
    return place


@pytest.mark.usefixtures("catalogue")
def test_a_model_of_the_catalogue_from_its_shape(roost: Run) -> None:
    done = roost("models", "estimate", "qwen3-8b:Q4_K_M", "--context", "32768", "--gpu-layers", "all", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["origin"], said["header"], said["layers"]) == ("header", "the shape in the catalogue", 37)
    host, gpu = said["devices"]
    assert (host["device"], gpu["device"]) == (HOST, "GPU0")
    assert gpu["kv"] == 36 * 32768 * 8 * 128 * 2 * 2
    assert gpu["total"] > gpu["weights"] + gpu["kv"]


@pytest.mark.usefixtures("site")
def test_a_file_and_the_table(roost: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_sparse(CatalogueHeaders(load_catalogue(CATALOGUE))("qwen3-8b", "Q4_K_M"), path)
    done = roost("models", "estimate", str(path), "--cache-type", "q8_0")
    assert done.exit_code == 0, done.output
    assert f"header from the file {path}" in done.stdout
    assert "612 MiB" in done.stdout  # 36 layers · 8,192 tokens · 2,048 elements of 34/32 bytes
    assert "header" in done.stdout.splitlines()[-1]


def test_what_the_engine_said_goes_first(roost: Run, site: Installation, catalogue: Path) -> None:
    model = load_catalogue(catalogue).get("smollm2-135m-instruct")
    settings = ServerSettings(2048, 4, cache_ram_mib=256)
    key = MeasuredKey("engine-1", model.file.sha256, settings, LayerSplit())
    state = Path(json.loads(site.site_file.read_text())["state_dir"])
    state.mkdir(parents=True, exist_ok=True)
    MeasuredStore(state).keep(key, Estimate((DeviceBytes(HOST, 1, 2, 3, 4, 5),), "measured"))
    asked = ("models", "estimate", "smollm2-135m-instruct", "--context", "2048", "--parallel", "4", "--json")
    said = json.loads(roost(*asked).stdout)
    assert (said["origin"], said["devices"][0]["total"]) == ("measured", 15)
    assert [each["origin"] for each in said["estimates"]] == ["header", "measured"]


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nothing-like-it"], 6, "no model"),
        (["qwen3-8b", "--cache-type", "q3"], 2, "no cache type"),
        (["qwen3-8b", "--gpu-layers", "some"], 2, "no number of layers"),
        (["qwen3-8b", "--gpu-layers", "99"], 1, "the model has 37"),
        (["missing.gguf"], 1, "cannot be read"),
        (["hf:nonsense"], 2, "is not hf:OWNER/NAME"),
        (["hf:owner/name:Q4_K_M"], 2, "is not hf:OWNER/NAME"),
        (["qwen3-8b", "--cache-type", "q8_0", "--no-flash-attention"], 1, "without flash attention"),
    ],
)
def test_mistakes_are_said(roost: Run, words: list[str], code: int, says: str) -> None:
    done = roost("models", "estimate", *words)
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == code
    assert says in done.exception.message
