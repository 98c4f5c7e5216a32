"""Headers of the catalogue's models, and the host's own figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.on_host import HostEngine, HostEstimator
from roost.models.estimate.oracle import EngineCommand
from roost.models.footprint import HOST, DeviceBytes, LayerSplit, ServerSettings
from roost.models.memory import job_memory_mib
from roost.models.store import model_path
from roost.ops.errors import RoostError
from tests.support.gguf_files import write_sparse

ROOT = Path(__file__).parents[4]
MODEL, QUANTISATION = "smollm2-135m-instruct", "Q4_1"
SETTINGS, CPU_ONLY = ServerSettings(2048, 4), LayerSplit()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(ROOT / "group_vars" / "models.yaml")


@pytest.fixture
def headers(catalogue: Catalogue, tmp_path: Path) -> CatalogueHeaders:
    """The embedded model's file is there."""
    path = model_path(tmp_path, catalogue.get(MODEL).file)
    path.parent.mkdir(parents=True)
    write_sparse(CatalogueHeaders(catalogue)(MODEL, QUANTISATION), path)
    return CatalogueHeaders(catalogue, tmp_path)


def _says(folder: Path, row: str) -> EngineCommand:
    script = folder / "oracle.sh"
    script.write_text(f'echo asked >> {folder}/asked\necho "{row}"\n')
    return lambda _program: (["sh", str(script)], None)


def test_every_shape_of_the_catalogue_gives_an_estimate(catalogue: Catalogue) -> None:
    headers = CatalogueHeaders(catalogue)
    shaped = [model for model in catalogue.all() if model.shape]
    assert len(shaped) > 20
    for model in shaped:
        header = headers(model.name, model.quantisation)
        size = sum(tensor.bytes for tensor in header.tensors)
        if model.file.bytes is not None:  # the file has the vocabulary too
            assert 0.97 * model.file.bytes < size < model.file.bytes, model.reference


def test_without_shape_and_file_it_is_said(catalogue: Catalogue) -> None:
    bare = next(model for model in catalogue.all() if not model.shape)
    with pytest.raises(RoostError, match="says nothing of the shape"):
        CatalogueHeaders(catalogue)(bare.name, bare.quantisation)


def test_a_file_that_is_here_goes_before_the_shape(headers: CatalogueHeaders) -> None:
    assert headers(MODEL, QUANTISATION).metadata["tokenizer.ggml.model"] == "none"
    assert headers(MODEL, QUANTISATION) is headers(MODEL, QUANTISATION)


def test_the_oracle_is_asked_once_and_again_for_another_engine(headers: CatalogueHeaders, tmp_path: Path) -> None:
    engine = HostEngine("build-1", command=_says(tmp_path, "Host 92 180 106"))
    estimator = HostEstimator(headers, tmp_path, engine)
    assert estimator.ask(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).origin == "oracle"
    assert HostEstimator(headers, tmp_path, engine).ask(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).origin == "oracle"
    assert estimator.estimate(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).origin == "oracle"
    assert (tmp_path / "asked").read_text().count("asked") == 1
    other = HostEngine("build-2", command=engine.command)
    HostEstimator(headers, tmp_path, other).ask(MODEL, QUANTISATION, SETTINGS, CPU_ONLY)
    assert (tmp_path / "asked").read_text().count("asked") == 2


def test_an_oracle_that_cannot_be_asked_is_a_warning(headers: CatalogueHeaders, tmp_path: Path) -> None:
    warnings: list[str] = []
    estimator = HostEstimator(headers, tmp_path, HostEngine("build-1", command=_says(tmp_path, "no idea")))
    assert estimator.ask(MODEL, QUANTISATION, SETTINGS, CPU_ONLY, warnings.append).origin == "header"
    assert "did not say" in warnings[0]


def test_what_a_server_took_is_the_next_estimate(headers: CatalogueHeaders, tmp_path: Path) -> None:
    estimator = HostEstimator(headers, tmp_path, HostEngine("build-1"))
    assert estimator.ask(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).origin == "header"
    assert estimator.took(MODEL, QUANTISATION, SETTINGS, CPU_ONLY, [DeviceBytes(HOST, 1, 2, 3, 4)])
    found = estimator.ask(MODEL, QUANTISATION, SETTINGS, CPU_ONLY)
    assert found.origin == "measured"
    assert found.on(HOST).weights == 1
    assert found.on(HOST).other > 0


def test_repacked_weights_do_not_count_twice(headers: CatalogueHeaders, tmp_path: Path) -> None:
    estimator = HostEstimator(headers, tmp_path, HostEngine("build-1"))
    estimator.took(MODEL, QUANTISATION, SETTINGS, CPU_ONLY, [DeviceBytes(HOST, 1 << 40, 2, 3, 4)])
    by_header = estimator.by_header.estimate(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).on(HOST)
    assert estimator.estimate(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).on(HOST).weights == by_header.weights


def test_an_engine_without_a_known_build_keeps_nothing(headers: CatalogueHeaders, tmp_path: Path) -> None:
    estimator = HostEstimator(headers, tmp_path, HostEngine(""))
    assert not estimator.took(MODEL, QUANTISATION, SETTINGS, CPU_ONLY, [])


def test_limit_of_a_job_is_what_lies_on_the_host(headers: CatalogueHeaders, tmp_path: Path) -> None:
    """Measured: 492 MiB idle, 715 MiB at most with 256 MiB of prompt cache (see roost.models.memory)."""
    estimator = HostEstimator(headers, tmp_path, HostEngine("build-1"))
    found = estimator.estimate(MODEL, QUANTISATION, ServerSettings(8192, 2, cache_ram_mib=256), CPU_ONLY)
    assert 715 < job_memory_mib(found) == 832
    assert job_memory_mib(found) % 16 == 0
