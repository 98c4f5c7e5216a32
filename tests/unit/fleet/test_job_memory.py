"""Limits of jobs on a host: the engine is asked, heard, and a limit does not move without need."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.engine_start import read_start
from roost.fleet.job_memory import image_engine, job_memory, measured_devices, tree_engine
from roost.fleet.jobs import Identity
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.on_host import HostEngine
from roost.models.footprint import HOST, LayerSplit, ServerSettings
from roost.models.store import model_path
from tests.support.gguf_files import write_sparse

ROOT = Path(__file__).parents[3]
MODEL, QUANTISATION = "smollm2-135m-instruct", "Q4_1"
SETTINGS = ServerSettings(8192, 2, cache_ram_mib=256)
CPU_ONLY = LayerSplit()
WHO = Identity("roost-engine", "roost", 8362, 8362)
MIB = 1 << 20

# llama-server 0.7.0 at verbosity 4, the embedded model, 2 slots of 8,192 tokens
CPU_LOG = """
0.00.413.655 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.425.482 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
0.00.426.768 I llama_context:        CPU  output buffer size =     0.38 MiB
0.00.427.100 I llama_kv_cache:        CPU KV buffer size =   360.00 MiB
0.00.450.691 I sched_reserve:        CPU compute buffer size =    22.64 MiB
"""
# The format of a build with CUDA, after the same source; not recorded, as no such machine was at hand.
CUDA_LOG = """
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  2600.50 MiB
load_tensors:        CUDA1 model buffer size =  1800.25 MiB
llama_context:  CUDA_Host  output buffer size =     1.96 MiB
llama_kv_cache:      CUDA0 KV buffer size =   640.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   384.00 MiB
llama_memory_recurrent:      CUDA1 RS buffer size =     6.00 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
sched_reserve:      CUDA1 compute buffer size =   304.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    40.00 MiB
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(ROOT / "group_vars" / "models.yaml")


@pytest.fixture
def models_dir(catalogue: Catalogue, tmp_path: Path) -> Path:
    path = model_path(tmp_path / "models", catalogue.get(MODEL).file)
    path.parent.mkdir(parents=True)
    write_sparse(CatalogueHeaders(catalogue)(MODEL, QUANTISATION), path)
    return tmp_path / "models"


def _engine(folder: Path, row: str) -> HostEngine:
    script = folder / "oracle.sh"
    script.write_text(f'echo asked >> {folder}/asked\necho "{row}"\n')
    return HostEngine("build-1", command=lambda _program: (["sh", str(script)], None))


def test_a_limit_stays_while_better_figures_become_known(
    catalogue: Catalogue, models_dir: Path, tmp_path: Path
) -> None:
    engine = _engine(tmp_path, "Host 92 360 115")
    unknown = job_memory(catalogue, models_dir, None, HostEngine(""))
    memory = job_memory(catalogue, models_dir, tmp_path, engine, ask=True)
    limits = [each.limit_mib(MODEL, QUANTISATION, SETTINGS, CPU_ONLY) for each in (unknown, memory)]
    start = read_start(CPU_LOG)
    assert start is not None
    assert memory.started(MODEL, QUANTISATION, SETTINGS, CPU_ONLY, start)
    assert not memory.started(MODEL, QUANTISATION, SETTINGS, CPU_ONLY, start)
    limits.append(memory.limit_mib(MODEL, QUANTISATION, SETTINGS, CPU_ONLY))
    assert limits == [832, 832, 832]
    assert memory.estimator.estimate(MODEL, QUANTISATION, SETTINGS, CPU_ONLY).origin == "measured"
    assert (tmp_path / "asked").read_text().count("asked") == 1


def test_what_a_processor_repacks_is_measured_as_the_hosts(
    catalogue: Catalogue, models_dir: Path, tmp_path: Path
) -> None:
    """Recorded on a processor with AMX, whose buffers were once taken for a card: nothing was kept then."""
    start = read_start((Path(__file__).parent / "start_logs" / "cpu-amx.txt").read_text())
    assert start is not None
    settings = ServerSettings(512, 2, cache_ram_mib=0)
    memory = job_memory(catalogue, models_dir, tmp_path, _engine(tmp_path, "Host 92 22 15"), ask=True)
    assert memory.started(MODEL, QUANTISATION, settings, CPU_ONLY, start)
    kept = memory.estimator.estimate(MODEL, QUANTISATION, settings, CPU_ONLY)
    assert (kept.origin, [device.device for device in kept.devices]) == ("measured", ["CPU"])


def test_an_engine_that_needs_more_gets_more(catalogue: Catalogue, models_dir: Path, tmp_path: Path) -> None:
    memory = job_memory(catalogue, models_dir, tmp_path, _engine(tmp_path, "Host 92 700 115"), ask=True)
    assert memory.limit_mib(MODEL, QUANTISATION, SETTINGS, CPU_ONLY) > 832 + 300


def test_a_check_asks_nobody(catalogue: Catalogue, models_dir: Path, tmp_path: Path) -> None:
    memory = job_memory(catalogue, models_dir, tmp_path, _engine(tmp_path, "Host 92 360 115"), ask=False)
    assert memory.limit_mib(MODEL, QUANTISATION, SETTINGS, CPU_ONLY) == 832
    assert not (tmp_path / "asked").exists()


def test_with_graphics_processors_the_oracle_is_not_asked(
    catalogue: Catalogue, models_dir: Path, tmp_path: Path
) -> None:
    memory = job_memory(catalogue, models_dir, tmp_path, _engine(tmp_path, "Host 92 360 115"), ask=True)
    assert memory.limit_mib(MODEL, QUANTISATION, SETTINGS, LayerSplit((0,), (31,))) < 832
    assert not (tmp_path / "asked").exists()


def test_devices_of_a_start() -> None:
    start = read_start(CUDA_LOG)
    assert start is not None
    found = measured_devices(start, LayerSplit((1, 3), (20, 13)))
    assert found is not None
    host, first, second = found
    assert [device.device for device in found] == [HOST, "GPU1", "GPU3"]
    assert (host.compute, host.output) == (40 * MIB, round(1.96 * MIB))
    assert first.weights == round(2600.5 * MIB)
    assert second.kv == 390 * MIB
    assert measured_devices(start, CPU_ONLY) is None
    assert measured_devices(start, LayerSplit((0,), (33,))) is None


def test_the_engines_devices_are_taken_by_their_number() -> None:
    lines = CUDA_LOG.strip().splitlines()
    swapped = [lines[0], *reversed(lines[1:])]
    first, second = (read_start("\n".join(text)) for text in (lines, swapped))
    assert first is not None
    assert second is not None
    split = LayerSplit((1, 3), (20, 13))
    assert measured_devices(second, split) == measured_devices(first, split)


def test_what_a_projector_computes_with_is_not_the_models() -> None:
    # as llama-server writes it after the model's own lines (tools/mtmd/clip.cpp)
    vision = """
load_hparams: model size:         887.99 MiB
alloc_compute_meta:      CUDA0 compute buffer size =   248.10 MiB
alloc_compute_meta:        CPU compute buffer size =    24.93 MiB
reserve_compute_meta:        CPU compute buffer size =    64.49 MiB
"""
    assert read_start(CUDA_LOG + vision) == read_start(CUDA_LOG)


def test_the_engine_reads_files_as_its_own_user(tmp_path: Path) -> None:
    tree = tree_engine(tmp_path / "engine-1", WHO, [{"name": "RTX 4090"}])
    assert (tree.build, tree.gpu) == ("engine-1", "RTX 4090")
    assert tree.command is not None
    words, folder = tree.command("llama-fit-params")
    assert words[0].endswith("setpriv")
    assert "roost-engine" in words
    assert words[-1].endswith("llama-fit-params")
    assert folder is not None
    image = image_engine("roost/llama-server:1", WHO, Path("/models"), [])
    assert image.command is not None
    words, _ = image.command("llama-fit-params")
    assert words[:2] == ["docker", "run"]
    assert {"--network", "none", "8362:8362", "/models:/models:ro"} <= set(words)
    assert words[-2:] == ["/usr/bin/llama-fit-params", "roost/llama-server:1"]
