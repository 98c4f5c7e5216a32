"""What a host's model servers need: its engine is asked before a job runs, and heard after it started."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roost.fleet.artifacts.engine import engine_command
from roost.fleet.engine_start import HOST as ENGINE_HOST
from roost.fleet.engine_start import Buffers, EngineStart
from roost.fleet.jobs import Identity
from roost.models.catalogue import Catalogue
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.on_host import HostEngine, HostEstimator
from roost.models.footprint import HOST, DeviceBytes, LayerSplit, ServerSettings
from roost.models.memory import job_memory_mib
from roost.ops.errors import RoostError

MIB = 1 << 20


@dataclass
class JobMemory:
    """Limits of this host's jobs. `ask`: the engine may be asked; else what is known already has to do."""

    estimator: HostEstimator
    ask: bool = False
    warn: Callable[[str], None] = field(default=lambda _line: None)

    def limit_mib(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> int:
        """Return the limit of the machine's memory for a server.

        Its oracle is asked only where all is computed on the processor: of graphics processors it would see all, not
        those of the plan. What lies on those is known from the server's first start.

        Raises:
            RoostError: nothing is known of this model's shape, or the engine would refuse these settings.
        """
        header = self.estimator.by_header.estimate(model, quantisation, settings, split)
        if self.ask and not split.total:
            best = self.estimator.ask(model, quantisation, settings, split, self.warn)
        else:
            best = self.estimator.estimate(model, quantisation, settings, split)
        return job_memory_mib(header, best)

    def started(
        self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit, start: EngineStart
    ) -> bool:
        """Keep what a server's log said of its start; say whether that was new."""
        devices = measured_devices(start, split)
        if devices is None:
            return False
        try:
            return self.estimator.took(model, quantisation, settings, split, devices)
        except (RoostError, OSError) as error:
            self.warn(f"What {model} took could not be kept: {error}")
            return False


def job_memory(
    catalogue: Catalogue,
    models_dir: Path,
    state_dir: Path | None,
    engine: HostEngine,
    *,
    ask: bool = False,
    warn: Callable[[str], None] = lambda _line: None,
) -> JobMemory:
    """Return the limits of a host's jobs; without `state_dir` nothing is kept and nothing known."""
    headers = CatalogueHeaders(catalogue, models_dir)
    return JobMemory(HostEstimator(headers, state_dir or models_dir, engine), ask and state_dir is not None, warn)


def tree_engine(tree: Path, who: Identity, gpus: Sequence[Mapping[str, Any]]) -> HostEngine:
    """Return the engine of plain processes. Files of strangers are read as the engine's user, not as root."""

    def command(program: str) -> tuple[Sequence[str], Path | None]:
        argv, folder = engine_command(tree, program)
        first, rest = who.command("raw_exec", argv[0], argv[1:])
        return [first, *rest], folder

    return HostEngine(tree.name, gpu_words(_names(gpus)), command if tree.name else None)


def image_engine(image: str, who: Identity, models_dir: Path, gpus: Sequence[Mapping[str, Any]]) -> HostEngine:
    """Return the engine of containers; its oracle sees the models folder and no network."""
    run = ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    run += ["--security-opt", "no-new-privileges", "--user", who.user("docker")]
    run += ["--volume", f"{models_dir}:{models_dir}:ro"]

    def command(program: str) -> tuple[Sequence[str], Path | None]:
        return [*run, "--entrypoint", f"/usr/bin/{program}", image], None

    return HostEngine(image, gpu_words(_names(gpus)), command if image else None)


def gpu_words(names: Sequence[str]) -> str:
    """Name a host's graphics processors; measured figures hold for these only."""
    return ", ".join(names)


def _names(gpus: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(gpu.get("name", "")) for gpu in gpus]


def measured_devices(start: EngineStart, split: LayerSplit) -> list[DeviceBytes] | None:
    """Return what an engine's start took on each device; None where its log does not say it all.

    The engine's devices are those of the split, in its order: the first is CUDA0, Vulkan0, whichever its log has first.
    Layers on workers of other hosts are not this host's.
    """
    found = {name: sizes for name, sizes in start.buffers.items() if name != ENGINE_HOST and ":" not in name}
    ours = {name: found[name] for name in sorted(found, key=_number)}
    host = start.buffers.get(ENGINE_HOST, Buffers())
    if not host.model or len(ours) != sum(1 for layers in split.gpu_layers if layers):
        return None
    if not any(sizes.compute for sizes in start.buffers.values()):
        return None
    used = [index for index, layers in zip(split.gpus, split.gpu_layers, strict=True) if layers]
    named = zip((HOST, *(f"GPU{index}" for index in used)), (host, *ours.values()), strict=True)
    return [
        DeviceBytes(
            name, round(sizes.model * MIB), round(sizes.kv * MIB), round(sizes.compute * MIB), round(sizes.output * MIB)
        )
        for name, sizes in named
    ]


def _number(device: str) -> int:
    """Return the number in the engine's name of a device."""
    return int(re.sub(r"\D", "", device) or 0)
