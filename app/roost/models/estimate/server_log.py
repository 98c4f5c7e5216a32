"""What the engine's server says of its buffers when it starts; printed from `--log-verbosity 4` on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from roost.models.footprint import HOST, DeviceBytes, LayerSplit

MIB = 1 << 20
START = "load_tensors: loading model tensors"  # of the real load, after that of the measuring phase
BUFFER = re.compile(
    r"(?P<name>\S+)\s+(?P<kind>model|KV|RS|compute|output) buffer size\s*=\s*(?P<mib>\d+(?:\.\d+)?) MiB"
)
LAYERS = re.compile(r"offloaded (?P<there>\d+)/(?P<all>\d+) layers to GPU")
HOST_BUFFERS = ("CPU", "CPU_Mapped", "CPU_REPACK", "Host")
MAX_LINES = 1 << 20
FIELDS = {"model": "weights", "KV": "kv", "RS": "kv", "compute": "compute", "output": "output"}


@dataclass(frozen=True)
class Started:
    """Buffers of a server that was started, in bytes, and how many layers went to graphics processors of how many."""

    devices: tuple[DeviceBytes, ...]
    gpu_layers: int | None = None
    layers: int | None = None


def read_log(lines: Iterable[str], split: LayerSplit) -> Started | None:
    """Return what a server's log says of its last start; None where it does not say it all.

    Names of devices are the engine's (CUDA0, Vulkan0 …), in the order of the split's graphics processors.
    """
    found: dict[str, dict[str, float]] = {}
    seen: set[str] = set()
    offloaded: tuple[int, int] | None = None
    for number, line in enumerate(lines):
        if number >= MAX_LINES:
            return None
        if START in line:
            found, seen = {}, set()
        elif match := LAYERS.search(line):
            offloaded = int(match["there"]), int(match["all"])
        elif match := BUFFER.search(line):
            place, field = _device(match["name"]), FIELDS[match["kind"]]
            seen.add(field)
            of_place = found.setdefault(place, {})
            of_place[field] = of_place.get(field, 0.0) + float(match["mib"])
    if not {"weights", "compute", "output"} <= seen:
        return None
    names = sorted((name for name in found if name != HOST), key=_number)
    ours = dict(zip(names, (f"GPU{index}" for index in split.gpus), strict=False))
    devices = [_bytes(HOST, found.get(HOST, {}))]
    devices += [_bytes(ours.get(name, name), found[name]) for name in names]
    return Started(tuple(devices), *(offloaded or (None, None)))


def _device(name: str) -> str:
    return HOST if name in HOST_BUFFERS or name.endswith("_Host") else name.removesuffix("_Split")


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"\d+$", name)
    return (int(digits[0]) if digits else 0, name)


def _bytes(device: str, mib: dict[str, float]) -> DeviceBytes:
    return DeviceBytes(device, **{field: round(value * MIB) for field, value in mib.items()})
