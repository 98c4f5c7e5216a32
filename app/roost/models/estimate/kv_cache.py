"""The cache of keys and values, and the states of recurrent layers.

As llama.cpp makes them: src/llama-context.cpp (`n_ctx`, `n_ctx_seq`), src/llama-kv-cache.cpp, -iswa.cpp,
src/llama-memory-recurrent.cpp and `llama_model::create_memory` of src/llama-model.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

from roost.models.estimate.hyperparameters import Hyperparameters, Layer
from roost.models.footprint import CacheType, ServerSettings
from roost.ops.errors import RoostError

CELLS_STEP = 256
F32_BYTES = 4
# Elements and bytes of one block: ggml's block_q8_0 and block_q4_0 have a 16-bit scale for 32 elements.
BLOCKS: dict[CacheType, tuple[int, int]] = {"f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}


@dataclass(frozen=True)
class Cells:
    """Sizes of the cache: tokens of one stream, and how many streams. `windowed` is for layers with a window."""

    full: int
    windowed: int
    streams: int


def padded(value: int, step: int) -> int:
    """Round up to a multiple of `step`."""
    return -(-value // step) * step


def cells(shape: Hyperparameters, settings: ServerSettings) -> Cells:
    """Return how large the engine makes the cache.

    It is given `context_size * parallel` tokens; unless unified, each slot has a stream of its own.
    """
    total = padded(settings.context_size * settings.parallel, CELLS_STEP)
    streams = 1 if settings.kv_unified else settings.parallel
    full = padded(total // streams, CELLS_STEP)
    ubatch = ubatch_size(shape, settings)
    seen = shape.window * (settings.parallel if settings.kv_unified else 1) + ubatch
    return Cells(full, padded(min(full, seen), CELLS_STEP), streams)


def ubatch_size(shape: Hyperparameters, settings: ServerSettings) -> int:
    """Return how many tokens the engine computes at once: never more than fit the context of a causal model."""
    batch = min(settings.context_size * settings.parallel, settings.batch) if shape.causal else settings.batch
    return min(batch, settings.ubatch or batch)


def row_bytes(elements: int, kind: CacheType) -> int:
    """Return the bytes of a row of a cache.

    Raises:
        RoostError: the row is no whole number of blocks.
    """
    block, size = BLOCKS[kind]
    if elements % block:
        raise RoostError(
            f"A cache of type {kind} is not possible: {elements} elements of a layer are no whole blocks of {block}.",
            fix="Use the cache type f16.",
        )
    return elements // block * size


def cache_bytes_by_layer(shape: Hyperparameters, settings: ServerSettings) -> list[int]:
    """Return for each repeating layer the bytes of its keys, values and states, all slots together.

    Raises:
        RoostError: the engine refuses these cache types.
    """
    values = settings.cache_type_k if shape.latent else settings.cache_type_v
    if values != "f16" and not settings.flash_attention:
        raise RoostError(
            "The engine refuses a quantised cache of values without flash attention.",
            fix=f"Use cache_type_{'k' if shape.latent else 'v'} f16, or flash attention.",
        )
    if not shape.has_cache:
        return [0] * len(shape.layers)
    size = cells(shape, settings)
    widest = max((layer.value_width for layer in shape.layers), default=0)
    return [
        _attention(layer, shape, settings, size, widest) + _recurrent(layer, shape, settings) for layer in shape.layers
    ]


def _attention(layer: Layer, shape: Hyperparameters, settings: ServerSettings, size: Cells, widest: int) -> int:
    if not layer.cached:
        return 0
    tokens = (size.windowed if layer.windowed else size.full) * size.streams
    keys = row_bytes(layer.key_width, settings.cache_type_k)
    if shape.latent:
        return tokens * keys
    # without flash attention values lie transposed, and every layer gets the widest one's room
    width = layer.value_width if settings.flash_attention else widest
    return tokens * (keys + row_bytes(width, settings.cache_type_v))


def _recurrent(layer: Layer, shape: Hyperparameters, settings: ServerSettings) -> int:
    if not layer.recurrent:
        return 0
    return (shape.conv_state + shape.recurrent_state) * F32_BYTES * settings.parallel


def checkpoint_bytes(shape: Hyperparameters, settings: ServerSettings) -> int:
    """Return the bytes of one saved state of one slot: what the engine keeps beside the cache to go back to.

    Only caches that forget need it: windows and states. See `server_slot::prompt_save` and `--ctx-checkpoints` of the
    engine's server.
    """
    size = cells(shape, settings)
    total = 0
    for layer in shape.layers:
        if layer.recurrent:
            total += (shape.conv_state + shape.recurrent_state) * F32_BYTES
        if layer.cached and layer.windowed and shape.window:
            tokens = min(shape.window, size.windowed)
            values = 0 if shape.latent else row_bytes(layer.value_width, settings.cache_type_v)
            total += tokens * (row_bytes(layer.key_width, settings.cache_type_k) + values)
    return total
