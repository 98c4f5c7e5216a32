"""What a model server needs on each device: the words that estimate, placement and jobs share. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

CacheType = Literal["f16", "q8_0", "q4_0"]
Origin = Literal["header", "oracle", "measured"]
HOST = "CPU"  # the device whose memory is the machine's


@dataclass(frozen=True)
class ServerSettings:
    """How one model server is started, as far as memory depends on it. Defaults are llama-server's own.

    `context_size` is in tokens and counts for one request: the engine is given `context_size * parallel` in all.
    `adapters` are names of the catalogue, or files below the models folder.
    """

    context_size: int
    parallel: int = 1
    kv_unified: bool = False
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: bool = True
    batch: int = 2048
    ubatch: int = 512
    cache_ram_mib: int = 0  # the engine's cache of prompts, always in the machine's memory
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerSplit:
    """Which layers lie on which graphics processor; what is not on one is in the machine's memory.

    `gpu_layers[i]` layers are on the processor with the index `gpus[i]`. A model has its repeating layers and, as
    the last one, its output layer; as the engine does, the last layers go to a graphics processor first.
    """

    gpus: tuple[int, ...] = ()
    gpu_layers: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Return how many layers are on graphics processors: the engine's `--gpu-layers`."""
        return sum(self.gpu_layers)


@dataclass(frozen=True)
class DeviceBytes:
    """What one device holds, in bytes. `other` is what is no buffer of the model: program, driver context, caches."""

    device: str  # HOST, or GPU0, GPU1 … by the host's own index
    weights: int = 0
    kv: int = 0  # keys and values, and the states of recurrent layers
    compute: int = 0
    output: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Return the sum in bytes."""
        return self.weights + self.kv + self.compute + self.output + self.other


@dataclass(frozen=True)
class Estimate:
    """Needs of one model server, the host's own memory first."""

    devices: tuple[DeviceBytes, ...]
    origin: Origin

    def on(self, device: str) -> DeviceBytes:
        """Return what a device holds; nothing if it is not named."""
        return next((d for d in self.devices if d.device == device), DeviceBytes(device))


class Estimator(Protocol):
    """Says what a model in one quantisation would need; the best figure that is known."""

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        ...

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device.

        Raises:
            RoostError: nothing is known of this model's shape.
        """
        ...
