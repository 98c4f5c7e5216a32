"""How much of the machine's memory a model server's job may use: pure arithmetic.

    limit = weights + kv cache + compute buffer + output buffer + checkpoints + prompt cache + overhead,

all as far as they lie in the machine's memory, rounded up to 16 MiB; the estimate says them (`roost.models.estimate`).

- weights: they are mapped, and their pages count for the job
- kv cache, compute and output buffer: taken at start
- checkpoints: states that models with windows or recurrent layers are brought back to
- prompt cache: `--cache-ram`; the engine drops old prompts before it adds one, so it stays below
- overhead: program, libraries, threads, HTTP buffers

Measured with llama-server 0.7.0, SmolLM2-135M, 2 slots of 8192 tokens: 492 MiB idle, 519 MiB with long prompts and
no prompt cache, at most 715 MiB with 256 MiB of it; the formula gives 832 MiB.
"""

from __future__ import annotations

from roost.models.footprint import HOST, Estimate

MIB = 1 << 20
STEP_MIB = 16
TOLERANCE = 0.01  # so much too low a computed figure may be; it is less than any margin of placement


def job_memory_mib(*estimates: Estimate) -> int:
    """Return the memory limit in MiB: the most that one of the estimates of a server says.

    A job is given the header's figures and those known best: while both agree its limit stays as it is when better
    ones become known, and nothing restarts for them.
    """
    most = max(estimate.on(HOST).total for estimate in estimates)
    return -(-most // (STEP_MIB * MIB)) * STEP_MIB
