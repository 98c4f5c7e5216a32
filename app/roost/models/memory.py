"""How much memory a model server's job may use: pure arithmetic.

    limit = weights + kv cache + compute buffers + prompt cache + overhead, rounded up to 16 MiB

- weights: the file's size; it is mapped, and its pages count for the job
- kv cache: `kv_bytes_per_token` for each token of context, all slots together, taken at start; where it was not
  measured: keys and values of every layer in f16, which is the most that the shape allows
- compute buffers: the engine's own figure for this model (`compute_mib`); where it was not measured, the logits and
  twelve activations of one micro-batch in f32
- prompt cache: `--cache-ram`; the engine drops old prompts before it adds one, so it stays below
- overhead: program, libraries, threads, HTTP buffers

Measured with llama-server 0.7.0, SmolLM2-135M, 2 slots of 8192 tokens: 492 MiB idle, 519 MiB with long prompts and
no prompt cache, at most 715 MiB with 256 MiB of it; the formula gives 832 MiB.
"""

from __future__ import annotations

from roost.models.schema import Model
from roost.ops.errors import RoostError

MIB = 1 << 20
STEP_MIB = 16
F16_BYTES, F32_BYTES = 2, 4
UBATCH_TOKENS = 512  # the engine's default
OVERHEAD_MIB = 96


def memory_limit_mib(
    *,
    weights_bytes: int,
    kv_bytes_per_token: int,
    context_tokens: int,
    compute_mib: int,
    cache_ram_mib: int,
    overhead_mib: int = OVERHEAD_MIB,
) -> int:
    """Return the memory limit in MiB; `context_tokens` is the sum over the engine's parallel slots."""
    kv_bytes = kv_bytes_per_token * context_tokens
    exact = weights_bytes + kv_bytes + (compute_mib + cache_ram_mib + overhead_mib) * MIB
    return -(-exact // (STEP_MIB * MIB)) * STEP_MIB


def job_memory_mib(model: Model, *, context_tokens: int, cache_ram_mib: int) -> int:
    """Return the memory limit in MiB of a server of `model`.

    Raises:
        RoostError: the catalogue says nothing of its shape.
    """
    return memory_limit_mib(
        weights_bytes=model.bytes,
        kv_bytes_per_token=model.kv_bytes_per_token or _most_kv_bytes_per_token(model),
        context_tokens=context_tokens,
        compute_mib=_compute_mib(model) if model.compute_mib is None else model.compute_mib,
        cache_ram_mib=cache_ram_mib,
    )


def _most_kv_bytes_per_token(model: Model) -> int:
    layers, width = _number(model, "block_count"), _number(model, "embedding_length")
    heads = _number(model, "attention.head_count")
    kv_heads = _number(model, "attention.head_count_kv", heads)
    lengths = [_number(model, f"attention.{part}_length", width // heads) for part in ("key", "value")]
    return layers * kv_heads * sum(lengths) * F16_BYTES


def _compute_mib(model: Model) -> int:
    width = _number(model, "vocab_size") + 12 * _number(model, "embedding_length")
    return -(-width * UBATCH_TOKENS * F32_BYTES // MIB)


def _number(model: Model, key: str, default: int | None = None) -> int:
    """Return a number of the shape; of one that differs from layer to layer, the largest."""
    value = model.shape.get(key, default)
    if isinstance(value, list):
        return max(value)
    if not isinstance(value, int):
        raise RoostError(
            f"The catalogue does not say the {key} of {model.name}, so its memory is not known.",
            fix="Write it into the model's shape in the catalogue.",
        )
    return value
