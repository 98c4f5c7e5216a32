"""How a model server reaches graphics processors: files of /dev, groups, runtime, environment, names. Pure.

Three backends of the engine compute on them: `cuda` and `hip` of the card's vendor, and `vulkan` for all. Each numbers
the cards it sees from 0, in an order of its own:

- CUDA and HIP: by PCI address (CUDA only with `CUDA_DEVICE_ORDER`)
- Vulkan: cards before integrated ones, then by PCI address (Vulkan-Loader, loader_linux.c), unless Mesa's layer that
  prefers the screen's card is switched off with `NODEVICE_SELECT`

A container sees only what it was given; a plain process sees all, so the backend's own variable hides the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from roost.ops.errors import RoostError

Backend = Literal["cuda", "hip", "vulkan"]

# Whose layers the engine's log names so: `offloaded N/M layers` to CUDA0, ROCm0, Vulkan0.
DEVICE_NAMES: Mapping[Backend, str] = {"cuda": "CUDA", "hip": "ROCm", "vulkan": "Vulkan"}
BACKEND_PACKAGES: Mapping[Backend, str] = {"hip": "libggml0-backend-hip", "vulkan": "libggml0-backend-vulkan"}
PREFERRED: Mapping[str, tuple[Backend, ...]] = {
    "NVIDIA": ("cuda", "vulkan"),
    "AMD": ("hip", "vulkan"),
    "Intel": ("vulkan",),
}
# Mesa's drivers are named, so that its software renderer never passes for a card.
VULKAN_DRIVERS = {"AMD": "radeon_icd.json", "Intel": "intel_icd.json"}
VULKAN_DRIVER_DIR = "usr/share/vulkan/icd.d"
RPC = "RPC"  # stands for workers on other hosts where vendors are named
RPC_PACKAGE = "libggml0-backend-rpc"
NVIDIA_RUNTIME = "nvidia"


@dataclass(frozen=True)
class GpuDevice:
    """One graphics processor of a host; `index` is its place among the facts' `gpus`, `slot` its PCI address."""

    index: int
    vendor: str
    slot: str
    integrated: bool = False
    nodes: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()


@dataclass(frozen=True)
class DeviceAccess:
    """What a job needs so that its server finds the devices `names`, which are in the order of the wish."""

    names: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()  # PCI addresses
    nodes: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()
    runtime: str = ""  # of Docker
    env: Mapping[str, str] = field(default_factory=dict)


def devices_of(facts: Sequence[Mapping[str, Any]]) -> tuple[GpuDevice, ...]:
    """Return the graphics processors of a host from its facts' `gpus`."""
    return tuple(
        GpuDevice(
            index=index,
            vendor=str(gpu["vendor"]),
            slot=str(gpu["slot"]),
            integrated=bool(gpu.get("integrated", False)),
            nodes=tuple(gpu.get("nodes", ())),
            gids=tuple(int(gid) for gid in gpu.get("gids", ())),
        )
        for index, gpu in enumerate(facts)
    )


def engine_packages(packages: Sequence[str], more: Mapping[str, Sequence[str]], used: Sequence[str]) -> tuple[str, ...]:
    """Return the engine's packages, with those of `more` for what is `used`: vendors, or `RPC`; sorted, each once.

    Raises:
        RoostError: nothing is named for one of them.
    """
    missing = [name for name in used if name not in more]
    if missing:
        raise RoostError(
            f"engine_gpu_packages names no packages for {missing[0]}.",
            fix=f"Add {missing[0]} to engine_gpu_packages, or set the slot's `gpu` to none.",
        )
    return tuple(sorted({*packages, *(package for name in used for package in more[name])}))


def chosen(devices: Sequence[GpuDevice], indices: Sequence[int]) -> tuple[GpuDevice, ...]:
    """Return the devices with these indices, in that order.

    Raises:
        RoostError: the host has no such device, or they are of several vendors, or one is named twice.
    """
    by_index = {device.index: device for device in devices}
    missing = [index for index in indices if index not in by_index]
    if missing:
        raise RoostError(
            f"This host has no graphics processor {missing[0]}.",
            fix=f"It has {', '.join(map(str, sorted(by_index))) or 'none'}: see `roost hosts`, and correct the slot.",
        )
    found = tuple(by_index[index] for index in indices)
    if len({device.vendor for device in found}) > 1 or len(set(indices)) < len(indices):
        raise RoostError(
            f"One model server cannot use the graphics processors {', '.join(map(str, indices))} together.",
            fix="Name processors of one vendor, each once, in the slot's `gpu`.",
        )
    return found


def backend_for(vendor: str, packages: Sequence[str], *, cuda: bool) -> Backend:
    """Return the engine's backend for a vendor's cards; `cuda`: an image with CUDA is at hand.

    Raises:
        RoostError: the engine as it is made here computes on no card of this vendor.
    """
    for backend in PREFERRED.get(vendor, ()):
        if cuda if backend == "cuda" else BACKEND_PACKAGES[backend] in packages:
            return backend
    raise RoostError(
        f"The engine that is made here cannot compute on graphics processors of {vendor}.",
        fix=f"Name a backend in engine_gpu_packages for {vendor}, or set the slot's `gpu` to none.",
    )


def access(
    devices: Sequence[GpuDevice], wanted: Sequence[int], backend: Backend, *, container: bool, tree: str = ""
) -> DeviceAccess:
    """Decide what gives a server the devices `wanted` of a host's `devices`; `tree` is the folder of its engine.

    Raises:
        RoostError: as `chosen`, or a card has no file in /dev.
    """
    if not wanted:
        return DeviceAccess()
    found = chosen(devices, wanted)
    vendor = found[0].vendor
    ranks = _ranks([device for device in devices if device.vendor == vendor], backend)
    seen = sorted(found, key=lambda device: ranks[device.index])
    names = tuple(f"{DEVICE_NAMES[backend]}{seen.index(device)}" for device in found)
    env = dict(_environment(vendor, backend, tree))
    if vendor == "NVIDIA":
        smi = _ranks([device for device in devices if device.vendor == vendor], "cuda")
        if container:
            env["NVIDIA_VISIBLE_DEVICES"] = ",".join(str(rank) for rank in sorted(smi[d.index] for d in found))
            env["NVIDIA_DRIVER_CAPABILITIES"] = "compute,utility" + (",graphics" if backend == "vulkan" else "")
        nodes, gids = set[str](), set[int]()
    else:
        bare = next((device for device in found if not device.nodes), None)
        if bare is not None:
            raise RoostError(
                f"The graphics processor at {bare.slot} has no render node in /dev/dri.",
                fix="Load its kernel driver (amdgpu, i915 or xe), or set the slot's `gpu` to none.",
            )
        kfd = backend == "hip"
        nodes = {node for device in found for node in device.nodes if kfd or node != "/dev/kfd"}
        gids = {gid for device in found for gid in device.gids}
    visible = ",".join(str(seen.index(d) if container else ranks[d.index]) for d in seen)
    if backend == "vulkan":
        env["GGML_VK_VISIBLE_DEVICES"] = visible
    elif not container:
        env["CUDA_VISIBLE_DEVICES" if backend == "cuda" else "ROCR_VISIBLE_DEVICES"] = visible
    return DeviceAccess(
        names=names,
        slots=tuple(device.slot for device in found),
        nodes=tuple(sorted(nodes)),
        gids=tuple(sorted(gids)),
        runtime=NVIDIA_RUNTIME if vendor == "NVIDIA" and container else "",
        env=env,
    )


def shader_cache(found: DeviceAccess, folder: str) -> Mapping[str, str]:
    """Return the variables that have a Vulkan driver keep compiled shaders in `folder`, which outlives the server.

    A server has no home, where the driver would keep them; without them the first requests after each start wait for
    the compiler. NVIDIA's: "README, Chapter 11, Specifying OpenGL Environment Variable Settings"; Mesa's: "Environment
    Variables". Other backends come compiled.
    """
    if "GGML_VK_VISIBLE_DEVICES" not in found.env or not folder:
        return {}
    if "VK_DRIVER_FILES" in found.env:
        return {"MESA_SHADER_CACHE_DIR": folder}
    return {"__GL_SHADER_DISK_CACHE": "1", "__GL_SHADER_DISK_CACHE_PATH": folder}


def _ranks(devices: Sequence[GpuDevice], backend: Backend) -> dict[int, int]:
    """Return index -> the number that a backend gives a card among all of its vendor's."""
    vulkan = backend == "vulkan"
    ordered = sorted(devices, key=lambda device: (vulkan and device.integrated, device.slot))
    return {device.index: rank for rank, device in enumerate(ordered)}


def _environment(vendor: str, backend: Backend, tree: str) -> Mapping[str, str]:
    if backend == "cuda":
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if backend != "vulkan":
        return {}
    found = {"NODEVICE_SELECT": "1"}
    if vendor in VULKAN_DRIVERS:
        found["VK_DRIVER_FILES"] = f"{tree}/{VULKAN_DRIVER_DIR}/{VULKAN_DRIVERS[vendor]}"
    return found
