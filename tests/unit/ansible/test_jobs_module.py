"""The module that applies jobs: a check before the certificate of a new address exists."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from roost.fleet.engine_start import EngineStart, read_start
from roost.fleet.job_memory import job_memory
from roost.fleet.site_jobs import SlotWish
from roost.models.catalogue import load_catalogue
from roost.models.estimate.measured import MeasuredStore
from roost.models.estimate.on_host import HostEngine
from roost.models.footprint import LayerSplit
from tests.support.ansible_module import REPOSITORY

WISH = SimpleNamespace(listen="192.0.2.1:8443")


@pytest.fixture
def jobs() -> ModuleType:
    """Return the module's code."""
    spec = importlib.util.spec_from_file_location("roost_jobs", REPOSITORY / "ansible/plugins/modules/roost_jobs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_check_knows_that_the_pair_will_be_made(jobs: ModuleType, tmp_path: Path) -> None:
    params = {"tls_dir": str(tmp_path), "listen_cert": "", "listen_key": ""}
    assert jobs.tls_pair(params, WISH, dry_run=True) == jobs.TO_BE_MADE
    with pytest.raises(FileNotFoundError):
        jobs.tls_pair(params, WISH, dry_run=False)
    (tmp_path / "api.pem").write_text("certificate")
    (tmp_path / "api-key.pem").write_text("key")
    assert jobs.tls_pair(params, WISH, dry_run=True) == ("certificate", "key")


SMALL = "smollm2-135m-instruct"
START = """
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors: offloaded 31/31 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    28.69 MiB
load_tensors:        CUDA0 model buffer size =    92.10 MiB
llama_context:  CUDA_Host  output buffer size =     0.38 MiB
llama_kv_cache:      CUDA0 KV buffer size =   180.00 MiB
sched_reserve:      CUDA0 compute buffer size =    98.25 MiB
sched_reserve:  CUDA_Host compute buffer size =     9.13 MiB
"""


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, True),
        ({"adapters": ["poet"]}, False),
        ({"embedding": True}, False),
        ({"rpc": [{"host": "b", "address": "192.0.2.2", "port": 5, "layers": 3, "memory_mib": 9}]}, False),
    ],
    ids=["plain", "adapters", "embedding", "rpc"],
)
def test_what_a_server_took_is_kept_for_the_next_plan(
    jobs: ModuleType, tmp_path: Path, more: Mapping[str, object], kept: bool
) -> None:
    catalogue = load_catalogue(REPOSITORY / "group_vars/models.yaml", lock=Path("/nonexistent"), custom={})
    slot = SlotWish.model_validate({
        "slot": "main", "model": SMALL, "context_size": 8192, "gpus": [1], "gpu_layers": [31], **more,
    })  # fmt: skip
    memory = job_memory(catalogue, tmp_path / "models", tmp_path, HostEngine("engine-1", "T4, RTX 4090"))
    start = read_start(START)
    assert start is not None
    starts: dict[str, EngineStart] = {"roost-model-main": start, "roost-model-gone": start}
    jobs.keep_starts(SimpleNamespace(slots=[slot]), catalogue, memory, starts)
    found = MeasuredStore(tmp_path).find(catalogue.get(SMALL).file.sha256, slot.settings, LayerSplit((1,), (31,)))
    assert [estimate.origin for estimate in found] == (["measured"] if kept else [])
    if kept:
        assert [device.device for device in found[0].devices] == ["CPU", "GPU1"]
        assert found[0].on("GPU1").kv == 180 << 20
        assert found[0].on("GPU1").other > 0
