"""How much memory a model server's job may use: pure arithmetic.

    limit = weights + kv cache + compute buffers + prompt cache + overhead, rounded up to 16 MiB

- weights: the file's size; it is mapped, and its pages count for the job
- kv cache: `kv_bytes_per_token` for each token of context, all slots together, taken at start
- compute buffers: the engine's own figure for this model (`compute_mib`)
- prompt cache: `--cache-ram`; the engine drops old prompts before it adds one, so it stays below
- overhead: program, libraries, threads, HTTP buffers

Measured with llama-server 0.7.0, SmolLM2-135M, 2 slots of 8192 tokens: 492 MiB idle, 519 MiB with long prompts and
no prompt cache, at most 715 MiB with 256 MiB of it; the formula gives 832 MiB.
"""

from __future__ import annotations

from roost.models.catalogue import Model

MIB = 1 << 20
STEP_MIB = 16
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
    """Return the memory limit in MiB of a server of `model`."""
    return memory_limit_mib(
        weights_bytes=model.file.bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        context_tokens=context_tokens,
        compute_mib=model.compute_mib,
        cache_ram_mib=cache_ram_mib,
    )
