"""What llama.cpp's server says of its start: layers on devices, buffers, context. Pure, from the text of its log.

The lines, of version 0.7.0 at verbosity 4 (src/llama-model.cpp, llama-context.cpp, llama-kv-cache.cpp):

    device_info:   - Vulkan0 : NAME (24105 MiB, 22312 MiB free)
    load_tensors: loading model tensors, this can take a while...
    load_tensors: offloaded 31/31 layers to GPU
    load_tensors:      Vulkan0 model buffer size =    92.10 MiB
    llama_kv_cache:    Vulkan0 KV buffer size =   360.00 MiB
    sched_reserve: Vulkan_Host compute buffer size =    12.52 MiB

What a projector takes to compute is told the same way by mtmd's clip.cpp, and is no part of the model's buffers:

    alloc_compute_meta:      CUDA0 compute buffer size =   248.10 MiB

Older ones name the same with other beginnings, and devices as `using device CUDA0 (NAME) - 7971 MiB free`. A buffer on
a worker of another host is called `RPC0[HOST:PORT]`. Weights repacked for the processor lie in buffers `CPU_REPACK`, or
`AMX` where it multiplies matrices by itself (ggml-cpu/amx/amx.cpp): all are the machine's own memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

HOST = "CPU"
OF_HOST = (HOST, "AMX")  # first words of buffers in the machine's own memory
KINDS = {"model": "model", "KV": "kv", "RS": "kv", "compute": "compute", "output": "output"}
SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader")  # renderers that pass for a card and compute on the processor
LISTED = re.compile(r"\s-\s+(\S+)\s*: (.+) \((\d+) MiB, (\d+) MiB free\)\s*$")
USED = re.compile(r"using device (\S+) \((.+)\) - (\d+) MiB free")
LOADING = re.compile(r"load_tensors: loading model tensors")
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size =\s*([\d.]+) MiB")
OF_PROJECTOR = re.compile(r"\b(alloc|reserve)_compute_meta:")
LAYERS = re.compile(r"n_layer\s+= (\d+)\s*$")
CONTEXT = re.compile(r"llama_context: n_ctx\s+= (\d+)\s*$")
SLOTS = re.compile(r"llama_context: n_seq_max\s+= (\d+)\s*$")
# Parts of the lines above: of a long log only lines with one of them need to be kept.
MARKS = (b"device", b"load_tensors", b"layers to GPU", b"buffer size", b"n_layer", b"n_ctx", b"n_seq_max", b"MiB free")
RPC_BUFFER = re.compile(r"RPC\d*\[(.+)\]")


@dataclass(frozen=True)
class FoundDevice:
    """A device that the engine found; `free_mib` before it loaded anything."""

    id: str  # CUDA0, Vulkan1, RPC0
    name: str
    free_mib: int

    @property
    def software(self) -> bool:
        """Say whether it is a program that only looks like a card."""
        return any(word in self.name.lower() for word in SOFTWARE)


@dataclass(frozen=True)
class Buffers:
    """What lies on one device, in MiB: weights, keys and values with recurrent states, computing, output."""

    model: float = 0.0
    kv: float = 0.0
    compute: float = 0.0
    output: float = 0.0

    @property
    def total(self) -> float:
        """Return their sum."""
        return self.model + self.kv + self.compute + self.output


@dataclass(frozen=True)
class EngineStart:
    """One start: `layers` of `of` are on devices; `buffers` by device, all of the machine's own memory as `CPU`.

    `context` is in tokens, of all slots together. 0 where the log does not say.
    """

    layers: int = 0
    of: int = 0
    devices: tuple[FoundDevice, ...] = ()
    buffers: Mapping[str, Buffers] = field(default_factory=dict)
    context: int = 0
    slots: int = 0


def read_start(log: str) -> EngineStart | None:
    """Return the newest start in a log, or None: it is not in there (yet, or no longer), or was not told."""
    listed: dict[str, FoundDevice] = {}
    layers = 0
    start: _Start | None = None
    for line in log.splitlines():
        if "device_info:" in line:
            listed = {}
        elif found := LISTED.search(line):
            listed[found[1]] = FoundDevice(found[1], found[2].strip(), int(found[4]))
        elif found := USED.search(line):
            listed.setdefault(found[1], FoundDevice(found[1], found[2], int(found[3])))
        elif found := LAYERS.search(line):
            layers = int(found[1])
        elif LOADING.search(line):
            start = _Start(devices=listed, of=layers + 1 if layers else 0)
        elif start is not None:
            start.read(line)
    return None if start is None or not start.buffers else start.done()


@dataclass
class _Start:
    devices: Mapping[str, FoundDevice]
    of: int
    layers: int = 0
    context: int = 0
    slots: int = 0
    buffers: dict[str, dict[str, float]] = field(default_factory=dict)

    def read(self, line: str) -> None:
        if found := OFFLOADED.search(line):
            self.layers, self.of = int(found[1]), int(found[2])
        elif (found := BUFFER.search(line)) and not OF_PROJECTOR.search(line):
            on = self.buffers.setdefault(_device(found[1]), {})
            kind = KINDS[found[2]]
            on[kind] = on.get(kind, 0.0) + float(found[3])
        elif found := CONTEXT.search(line):
            self.context = int(found[1])
        elif found := SLOTS.search(line):
            self.slots = int(found[1])

    def done(self) -> EngineStart:
        return EngineStart(
            layers=self.layers,
            of=self.of,
            devices=tuple(self.devices.values()),
            buffers={name: Buffers(**sizes) for name, sizes in self.buffers.items()},
            context=self.context,
            slots=self.slots,
        )


def _device(buffer: str) -> str:
    """Return the device of a buffer: its own name, a worker's address, or `CPU` for what the machine's memory holds."""
    worker = RPC_BUFFER.fullmatch(buffer)
    if worker:
        return worker[1]
    return HOST if buffer.split("_")[0] in OF_HOST or buffer.endswith("_Host") else buffer


def planned_text(planned: Mapping[str, int]) -> str:
    """Write how many layers belong on which device, for a job's meta: `Vulkan0=20,192.0.2.7:50052=11`."""
    return ",".join(f"{device}={layers}" for device, layers in planned.items())


def planned_layers(text: str) -> dict[str, int]:
    """Read what `planned_text` wrote; what is none of it counts for nothing."""
    parts = [part.rpartition("=") for part in text.split(",")]
    return {device: int(layers) for device, _, layers in parts if device and layers.isdigit()}


def shortfall(start: EngineStart, planned: Mapping[str, int]) -> str:
    """Say in words what is missing on the devices, compared with the plan; empty if all is where it belongs."""
    wanted = sum(planned.values())
    if not wanted:
        return ""
    seen = {device.id: device for device in start.devices}
    absent = [device for device in planned if ":" not in device and seen and device not in seen]
    if absent:
        return f"the engine found no {absent[0]} (it found {', '.join(seen)})"
    if not seen and not start.layers:
        return f"the engine found no graphics processor; 0 of {wanted} layers are on one"
    fake = [device for device in planned if device in seen and seen[device].software]
    if fake:
        return f"{fake[0]} is {seen[fake[0]].name}, which computes on the processor"
    if start.layers < wanted:
        return f"{start.layers} of {wanted} layers are on graphics processors"
    empty = [device for device in planned if not start.buffers.get(device, Buffers()).model]
    if empty:
        return f"no weights lie on {empty[0]}, where {planned[empty[0]]} layers belong"
    return ""
