"""The estimate from the header alone: pure, with no file and no engine at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from roost.models.estimate.compute import F32, INPUTS, compute_bytes, host_compute_bytes, output_bytes
from roost.models.estimate.hyperparameters import Hyperparameters, hyperparameters
from roost.models.estimate.kv_cache import cache_bytes_by_layer, checkpoint_bytes, ubatch_size
from roost.models.estimate.weights import layer_bytes, layer_devices, weight_bytes
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.gguf_header import Header
from roost.ops.errors import RoostError

MIB = 1 << 20
# Program, libraries, threads, HTTP buffers: measured, see roost.models.memory.
HOST_OVERHEAD_BYTES = 96 * MIB
# Driver context, kernels and their pools; half of what `--fit` leaves free on each device. Not measured here.
GPU_OVERHEAD_BYTES = 512 * MIB
# States kept to go back to: `--ctx-checkpoints` at most, one each `--checkpoint-min-step` tokens, two near the end.
MAX_CHECKPOINTS = 32
CHECKPOINT_STEP = 8192
LAST_CHECKPOINTS = 2
PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES: of each input, where several graphics processors hold the whole model

Headers = Callable[[str, str], Header]


def estimate_header(
    header: Header,
    settings: ServerSettings,
    split: LayerSplit,
    *,
    projector: Header | None = None,
    adapters: Sequence[Header] = (),
) -> Estimate:
    """Return what a server of this model needs on each device.

    `projector` is the header of an image or audio encoder's file, `adapters` are those of LoRA files.

    Raises:
        RoostError: the header is not that of a language model, or the engine would refuse these settings.
    """
    shape = hyperparameters(header)
    devices = layer_devices(shape, split)
    weights = weight_bytes(header, shape, split)
    for adapter in adapters:
        for device, size in weight_bytes(adapter, shape, split).items():
            weights[device] = weights.get(device, 0) + size
    cache: dict[str, int] = {}
    for device, size in zip(devices, cache_bytes_by_layer(shape, settings), strict=False):
        cache[device] = cache.get(device, 0) + size
    compute = _compute(header, shape, settings, split, devices)
    if projector is not None:
        place = f"GPU{split.gpus[0]}" if split.total else HOST
        weights[place] = weights.get(place, 0) + sum(tensor.bytes for tensor in projector.tensors)
        compute[place] = compute.get(place, 0) + projector_compute_bytes(projector)
    kept = min(MAX_CHECKPOINTS, LAST_CHECKPOINTS + settings.context_size // CHECKPOINT_STEP)
    checkpoints = checkpoint_bytes(shape, settings) * settings.parallel * kept
    host = DeviceBytes(
        HOST,
        weights.pop(HOST, 0),
        cache.pop(HOST, 0),
        compute.pop(HOST, 0),
        output_bytes(shape, settings),
        HOST_OVERHEAD_BYTES + settings.cache_ram_mib * MIB + checkpoints,
    )
    gpus = [
        DeviceBytes(name, weights.get(name, 0), cache.get(name, 0), compute.get(name, 0), 0, GPU_OVERHEAD_BYTES)
        for name in dict.fromkeys(device for device in devices if device != HOST)
    ]
    return Estimate((host, *gpus), "header")


def _compute(
    header: Header, shape: Hyperparameters, settings: ServerSettings, split: LayerSplit, devices: Sequence[str]
) -> dict[str, int]:
    """Return the compute buffer of each device: whoever has a layer needs room for the largest one."""
    whole = compute_bytes(shape, settings)
    found = dict.fromkeys(devices, whole)
    if not split.total:
        return found
    inputs = INPUTS * shape.embedding * ubatch_size(shape, settings) * F32
    used = sum(1 for layers in split.gpu_layers if layers)
    if HOST in found:
        # large batches of the host's layers are computed on a graphics processor too, with copied weights:
        # `op_offload` of ggml-backend.cpp
        largest = max(layer_bytes(header, shape))
        for name in found:
            found[name] += largest if name != HOST else 0
    else:
        found[HOST] = whole if shape.per_layer_embedding else min(whole, host_compute_bytes(shape, settings))
        if used > 1:
            for name in found:
                found[name] += (PIPELINE_COPIES - 1) * inputs
    return found


def projector_compute_bytes(projector: Header) -> int:
    """Return about what an image encoder computes in: activations and scores of one image (tools/mtmd/clip.cpp).

    Raises:
        RoostError: the header is not that of an encoder.
    """
    metadata = projector.metadata

    def number(key: str) -> int:
        value = metadata.get(f"clip.vision.{key}", 0)
        return value if isinstance(value, int) else 0

    patch, size, wide = number("patch_size"), number("image_size"), number("embedding_length")
    if not wide:
        if any(key.startswith("clip.") for key in metadata):
            return 64 * MIB  # an audio encoder: it reads 30 s at once
        raise RoostError("The projector's file is not that of an encoder.", fix="Name the mmproj file of the model.")
    tokens = (size // patch) ** 2 if patch else 0
    forward = number("feed_forward_length")
    return tokens * F32 * (6 * wide + 2 * forward + tokens * max(1, number("attention.head_count")))


class HeaderEstimator:
    """Estimates by header; implements `footprint.Estimator`. `headers` finds that of a model in one quantisation."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        return hyperparameters(self.headers(model, quantisation)).layer_count + 1

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device.

        Raises:
            RoostError: nothing is known of this model's shape, or the engine would refuse these settings.
        """
        return estimate_header(self.headers(model, quantisation), settings, split)
