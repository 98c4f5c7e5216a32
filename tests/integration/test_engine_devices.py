"""Layers on devices with the real engine: a software Vulkan card, two RPC workers, and what its start log says.

There is no graphics processor here. Mesa's software renderer passes for one where the engine is told to take it, so
that the engine goes the whole way of a card; that the product never takes it is tested too.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from roost.fleet.artifacts.engine import RPC_WORKER, engine_command, layout
from roost.fleet.devices import GpuDevice, access
from roost.fleet.engine_args import Offload, RpcWorker, ServerFiles, rpc_worker_args, server_args
from roost.fleet.engine_start import HOST, EngineStart, read_start, shortfall
from roost.models.footprint import LayerSplit, ServerSettings
from tests.support.engine import REPOSITORY, engine_tree, model_file
from tests.support.net import free_port, wait_until
from tests.unit.fleet.golden_jobs import texts

PACKAGES = ("libggml0-backend-vulkan", "mesa-vulkan-drivers", "libggml0-backend-rpc")
LAYERS = 31  # of SmolLM2-135M, with the output layer
SETTINGS = ServerSettings(512, parallel=2, cache_ram_mib=0)
TIMEOUT_S = 180.0


@pytest.fixture(scope="module")
def tree() -> Path:
    """Return an engine with every backend that needs no vendor."""
    return engine_tree(*PACKAGES)


@contextmanager
def running(argv: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(argv, cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **env})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start_of(
    tree: Path, folder: Path, offload: Offload, env: Mapping[str, str], settings: ServerSettings = SETTINGS
) -> EngineStart:
    """Start the server with the product's arguments until it listens; return what its log says."""
    key = folder / "key"
    key.write_text("key-of-the-test")
    argv, cwd = engine_command(tree)
    argv += server_args(ServerFiles(str(model_file())), settings, offload, alias="tiny", bind="127.0.0.1")
    argv = [word.replace("${NOMAD_PORT_http}", str(free_port())) for word in argv]
    argv = [word.replace("${NOMAD_SECRETS_DIR}/engine-key", str(key)) for word in argv]
    log = folder / "engine.log"
    with running([*argv, "--no-warmup"], cwd, log, env) as process:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            return "listening on" in log.read_text()

        wait_until(listens, TIMEOUT_S, "the model server to listen")
    found = read_start(log.read_text())
    assert found is not None
    return found


def test_the_processor(tmp_path: Path) -> None:
    found = start_of(engine_tree(), tmp_path, Offload(), {})
    assert (found.layers, found.of, found.context, found.slots) == (0, LAYERS, 1024, 2)
    assert set(found.buffers) == {HOST}
    assert found.buffers[HOST].kv == pytest.approx(1024 * 23040 / 2**20, rel=0.01)
    assert shortfall(found, {"Vulkan0": LAYERS})


def test_layers_go_to_a_device_and_the_log_says_how_many(tree: Path, tmp_path: Path) -> None:
    env = {"VK_DRIVER_FILES": str(tree / "usr/share/vulkan/icd.d/lvp_icd.json"), "GGML_VK_VISIBLE_DEVICES": "0"}
    found = start_of(tree, tmp_path, Offload(LayerSplit((0,), (12,)), ("Vulkan0",)), env)
    assert (found.layers, found.of) == (12, LAYERS)
    assert found.buffers["Vulkan0"].model > 0
    assert found.buffers[HOST].model > found.buffers["Vulkan0"].model
    assert "computes on the processor" in shortfall(found, {"Vulkan0": 12})


def test_without_a_driver_the_product_never_takes_the_software_renderer(tree: Path) -> None:
    """A card that is planned and not there: the engine refuses to start instead of computing on the processor."""
    planned = access((GpuDevice(0, "AMD", "0000:03:00.0", nodes=("/dev/dri/renderD128",)),), (0,), "vulkan",
                     container=False, tree=str(tree))  # fmt: skip
    argv, cwd = engine_command(tree)
    listed = subprocess.run(
        [*argv, "--list-devices"],
        cwd=cwd,
        env={**os.environ, **planned.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Vulkan" not in listed.stdout


def test_two_workers_hold_the_layers_of_one_server(tree: Path, tmp_path: Path) -> None:
    argv, cwd = engine_command(tree, RPC_WORKER)
    ports = [free_port(), free_port()]
    logs = [tmp_path / f"worker-{port}.log" for port in ports]

    def command(port: int) -> list[str]:
        return [*argv, *rpc_worker_args("127.0.0.1", str(port), (), 1)]

    workers = tuple(RpcWorker(f"127.0.0.1:{port}", layers) for port, layers in zip(ports, (15, 16), strict=True))
    with running(command(ports[0]), cwd, logs[0], {}), running(command(ports[1]), cwd, logs[1], {}):
        wait_until(lambda: all("Devices:" in log.read_text() for log in logs), TIMEOUT_S, "the workers to listen")
        found = start_of(tree, tmp_path, Offload(rpc=workers), {})
    assert (found.layers, found.of) == (LAYERS, LAYERS)
    assert shortfall(found, {worker.address: worker.layers for worker in workers}) == ""
    first, second = (found.buffers[worker.address] for worker in workers)
    assert first.kv == pytest.approx(second.kv)  # 15 layers with keys and values each; the 31st has none
    assert second.model > first.model


def test_the_engine_for_nvidia_brings_what_its_driver_opens() -> None:
    """As seen on a machine without a desktop: without libEGL.so.1 the driver (580) loads and offers no device."""
    defaults = yaml.safe_load((REPOSITORY / "group_vars" / "all.yaml").read_text())
    made = engine_tree(*defaults["engine_gpu_packages"]["NVIDIA"])
    folders = layout(made).libraries
    for library in ("libvulkan.so.1", "libEGL.so.1", "libX11.so.6", "libXext.so.6"):
        assert any((folder / library).exists() for folder in folders), library


@pytest.mark.parametrize("program", ["llama-server", RPC_WORKER])
def test_every_flag_of_a_golden_job_is_one_of_the_engine(program: str, tree: Path) -> None:
    argv, cwd = engine_command(tree, program)
    shown = subprocess.run([*argv, "--help"], cwd=cwd, capture_output=True, text=True, check=False)
    known = set(re.findall(r"--[a-z][a-z-]+", shown.stdout + shown.stderr))
    worker = program == RPC_WORKER
    used = {
        flag
        for name, text in texts().items()
        if ("-worker" in name) is worker and "docker" in name
        for flag in re.findall(r'"(--[a-z-]+)"', text)
    }
    assert used
    assert used <= known
