"""The jobs whose text lies in `golden/`: each vendor's graphics processors, with containers and without.

`ROOST_RENEW_GOLDEN=1 pytest tests/unit/fleet/test_golden_jobs.py` writes the files anew; look at the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roost.fleet.job_programs import Programs
from roost.fleet.job_text import render_job
from roost.fleet.jobs import Identity, ModelServerJob
from roost.fleet.site_jobs import site_jobs
from roost.fleet.site_wish import SiteWish, SlotWish
from roost.models.catalogue import Catalogue, load_catalogue

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
MODEL = "smollm2-135m-instruct"
WHO = Identity("roost-engine", "roost", 8362, 8362)
PACKAGES = {
    "NVIDIA": ["libggml0-backend-vulkan", "libegl1", "libxext6"],
    "AMD": ["libggml0-backend-vulkan", "mesa-vulkan-drivers"],
    "Intel": ["libggml0-backend-vulkan", "mesa-vulkan-drivers"],
    "RPC": ["libggml0-backend-rpc"],
}
HIP = {**PACKAGES, "AMD": ["libggml0-backend-hip"]}


def gpu(vendor: str, slot: str, *, render: int = 0, integrated: bool = False) -> dict[str, Any]:
    """Return one graphics processor as facts have it."""
    nodes = [f"/dev/dri/renderD{render}", *(["/dev/kfd"] if vendor == "AMD" else [])] if render else []
    return {"vendor": vendor, "slot": slot, "integrated": integrated, "nodes": nodes, "gids": [105] if render else []}


NVIDIA = [gpu("NVIDIA", "0000:01:00.0"), gpu("NVIDIA", "0000:41:00.0")]
AMD = [gpu("AMD", "0000:03:00.0", render=128), gpu("AMD", "0000:83:00.0", render=129)]
# The integrated one comes first on the bus, and last with Vulkan.
INTEL = [gpu("Intel", "0000:00:02.0", render=128, integrated=True), gpu("Intel", "0000:09:00.0", render=129)]
BASE = {"slot": "main", "model": MODEL, "context_size": 8192, "parallel": 2, "cache_ram_mib": 256}
ONE = {**BASE, "gpus": [0], "gpu_layers": [31], "memory_mib": 512}
TWO = {**BASE, "gpus": [0, 1], "gpu_layers": [20, 11], "memory_mib": 512}
RPC_WORKER = {"host": "second", "address": "192.0.2.7", "port": 50052, "layers": 15, "memory_mib": 400}

FLEET = {"node": "first", "engine_address": "192.0.2.6", "engine_tls_dir": "/srv/tls"}

# name -> facts of the processors, the slot, further fields of the wish
JOBS: Mapping[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "cpu": ([], BASE, {}),
    "cpu-on-purpose": (
        AMD,
        {**BASE, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "batch": 512, "ubatch": 256, "kv_unified": True},
        {"engine_packages": ["libggml0-backend-vulkan"]},
    ),
    "nvidia-cuda": (NVIDIA, TWO, {"engine_cuda_image": "registry.example/llama.cpp:server-cuda"}),
    "nvidia-vulkan": (NVIDIA, {**ONE, "gpus": [1]}, {}),
    "amd-vulkan": (AMD, TWO, {}),
    "amd-hip": (AMD, {**ONE, "gpus": [1]}, {"engine_gpu_packages": HIP}),
    "intel": (INTEL, {**ONE, "gpus": [1], "gpu_layers": [18]}, {}),
    "everything": (
        INTEL,
        {
            **TWO, "temperature": 0.3, "projector": "0123456789abcdef/mmproj.gguf", "save_slots": True,
            "adapters": ["00112233445566aa/a.gguf", "00112233445566bb/b.gguf"], "host": "first", "spares": ["second"],
        },
        {},
    ),
    "rpc": ([], {**BASE, "host": "first", "rpc": [RPC_WORKER]}, {}),
    "fleet": ([], {**BASE, "spares": ["second"]}, FLEET),
    "fleet-anywhere": (AMD, {**ONE, "number": 2, "spares": ["second"]}, FLEET),
}  # fmt: skip
RUNTIMES = {"docker": "docker", "raw_exec": "local"}


def catalogue() -> Catalogue:
    """Return the product's catalogue."""
    return load_catalogue(REPOSITORY / "group_vars" / "models.yaml")


def wish(runtime: str, facts: list[dict[str, Any]], slot: dict[str, Any], more: dict[str, Any]) -> SiteWish:
    """Return what the playbook would ask for."""
    fields: dict[str, Any] = {
        "runtime": runtime, "engine": "llama.cpp", "datacenter": "dc1", "bind": "127.0.0.1", "api_port": 8360,
        "agent_memory_mib": 256, "agent_log_level": "info", "agent_cost_mode": "smart",
        "models_dir": "/srv/models", "engine_threads": 3,
        "gpus": facts, "engine_gpu_packages": PACKAGES, "slots_dir": "/srv/slots",
        "slots": [SlotWish.model_validate(slot)], "agent_identity": WHO, "engine_identity": WHO,
    }  # fmt: skip
    return SiteWish.model_validate({**fields, **more})


def programs(runtime: str) -> Programs:
    """Return where the programs would be."""
    if runtime == "docker":
        return Programs(agent_image="roost/agent:1", engine_image="roost/llama-server:1")
    return Programs(
        agent_command=("/opt/roost/bin/python3", "-m", "roost.cli.serve"),
        engine_command=("/tree/ld.so", "/tree/usr/bin/llama-server"),
        engine_work_dir="/tree/backends",
        engine_tree="/tree",
        rpc_command=("/tree/ld.so", "/tree/ggml-rpc-server"),
    )


def texts() -> dict[str, str]:
    """Return file name -> text of every golden job but the agent's."""
    found: dict[str, str] = {}
    for name, (facts, slot, more) in JOBS.items():
        for driver, runtime in RUNTIMES.items():
            jobs = site_jobs(wish(runtime, facts, slot, more), catalogue(), programs(runtime))
            for job in jobs[:-1]:
                suffix = "" if isinstance(job, ModelServerJob) else "-worker"
                found[f"{name}{suffix}.{driver}.hcl"] = render_job(REPOSITORY / "nomad", job)
    return found
