"""Where a model's weights lie: the input on the host, repeating layers and the output by the split.

As llama.cpp does it: `LLM_TENSOR_INFOS` of src/llama-arch.cpp says to which part a tensor belongs,
`get_layer_buft_list` of src/llama-model.cpp which device that part is on.
"""

from __future__ import annotations

import re

from roost.models.estimate.hyperparameters import Hyperparameters
from roost.models.footprint import HOST, LayerSplit
from roost.models.gguf_header import Header, Tensor
from roost.ops.errors import RoostError

BLOCK = re.compile(r"^blk\.(\d+)\.")
TOKENS = "token_embd.weight"
OUTPUT = "output.weight"
INPUTS = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.", "masked_embd")
# Small tensors without a layer number that the first layer uses.
WITH_FIRST_LAYER = ("token_embd_norm.", "rope_freqs.", "rope_factors_", "per_layer_model_proj.", "per_layer_proj_norm.")


def layer_devices(shape: Hyperparameters, split: LayerSplit) -> list[str]:
    """Return the device of each layer, the output layer last.

    Raises:
        RoostError: more layers are to be on graphics processors than there are, or the split is not complete.
    """
    count = shape.layer_count + 1
    if len(split.gpus) != len(split.gpu_layers) or split.total > count or any(n < 0 for n in split.gpu_layers):
        raise RoostError(
            f"{split.total} layers on graphics processors are not possible: the model has {count}.",
            fix=f"Use at most {count}.",
        )
    devices = [HOST] * (count - split.total)
    for index, layers in zip(split.gpus, split.gpu_layers, strict=True):
        devices += [f"GPU{index}"] * layers
    return devices


def weight_bytes(header: Header, shape: Hyperparameters, split: LayerSplit) -> dict[str, int]:
    """Return the bytes of weights on each device.

    Where the output uses the token embedding and is not on the host, the engine holds a second copy of it.
    """
    devices = layer_devices(shape, split)
    found: dict[str, int] = {}
    names = {tensor.name for tensor in header.tensors}
    for tensor in header.tensors:
        device = _device(tensor, devices, shape)
        if device:
            found[device] = found.get(device, 0) + tensor.bytes
        if tensor.name == TOKENS and OUTPUT not in names and shape.causal and devices[-1] != HOST:
            found[devices[-1]] = found.get(devices[-1], 0) + tensor.bytes
    return found


def tied_bytes(header: Header) -> int:
    """Return the bytes of the token embedding if the output uses it too, else 0."""
    sizes = {tensor.name: tensor.bytes for tensor in header.tensors}
    return 0 if OUTPUT in sizes else sizes.get(TOKENS, 0)


def layer_bytes(header: Header, shape: Hyperparameters) -> list[int]:
    """Return the bytes of weights of each repeating layer."""
    found = [0] * len(shape.layers)
    for tensor in header.tensors:
        match = BLOCK.match(tensor.name)
        if match and int(match[1]) < len(found):
            found[int(match[1])] += tensor.bytes
    return found


def _device(tensor: Tensor, devices: list[str], shape: Hyperparameters) -> str:
    if match := BLOCK.match(tensor.name):
        index = int(match[1])
        return devices[index] if index < len(shape.layers) else ""  # those behind are not loaded
    if tensor.name.startswith(INPUTS):
        return HOST
    return devices[0] if tensor.name.startswith(WITH_FIRST_LAYER) else devices[-1]
