"""The engine's own word: `llama-fit-params --fit-print on` on the host that will serve, with its devices.

It loads the header, builds the real context without memory, and prints a line a device: name, model, context and
compute in MiB, rounded down; `context` holds the output buffer too (tools/fit-params, common/fit.cpp).

Four things are to be known of its figures. Weights that the engine repacks for the processor are missing, so it is
asked with `--no-repack`; they take the same room. It reserves an output for each token of a batch; the server only one
a slot, so that much is taken off. Of some architectures (gemma3n) it counts a tied embedding twice, which a mapped file
has once. And what is rounded down is taken from the header where both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roost.models.estimate.compute import F32
from roost.models.estimate.hyperparameters import hyperparameters
from roost.models.estimate.kv_cache import ubatch_size
from roost.models.estimate.weights import tied_bytes
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.gguf_header import Header
from roost.ops.errors import RoostError
from roost.ops.run import run

MIB = 1 << 20
PROGRAM = "llama-fit-params"
TIMEOUT_S = 60.0
MAX_OUTPUT_CHARS = 1 << 16
COLUMNS = 4
HOST_ROW = "Host"
UNIFIED = ("--kv-unified", "--no-kv-unified")

# From a program's name to the command that runs it, and the folder to run it in (None for any).
EngineCommand = Callable[[str], tuple[Sequence[str], Path | None]]


@dataclass(frozen=True)
class OracleRow:
    """One line of the oracle; sizes in bytes, rounded down to MiB."""

    device: str
    model: int
    context: int
    compute: int


def settings_arguments(settings: ServerSettings, split: LayerSplit) -> list[str]:
    """Return the arguments of the engine's server that memory depends on."""
    arguments = [
        "--ctx-size", str(settings.context_size * settings.parallel), "--parallel", str(settings.parallel),
        "--kv-unified" if settings.kv_unified else "--no-kv-unified",
        "--cache-type-k", settings.cache_type_k, "--cache-type-v", settings.cache_type_v,
        "--flash-attn", "on" if settings.flash_attention else "off",
        "--batch-size", str(settings.batch), "--ubatch-size", str(settings.ubatch), "--gpu-layers", str(split.total),
    ]  # fmt: skip
    if len(split.gpus) > 1:
        arguments += ["--tensor-split", ",".join(str(layers) for layers in split.gpu_layers)]
    return arguments


def read_oracle(output: str) -> list[OracleRow]:
    """Return the rows that the oracle printed, the host's last.

    Raises:
        RoostError: it printed something else.
    """
    rows = []
    for line in output[:MAX_OUTPUT_CHARS].splitlines():
        words = line.split()
        if len(words) == COLUMNS and all(word.isdigit() for word in words[1:]):
            model, context, compute = (int(word) * MIB for word in words[1:])
            rows.append(OracleRow(words[0], model, context, compute))
    if not rows or rows[-1].device != HOST_ROW:
        raise RoostError(f"{PROGRAM} did not say what the model needs.", fix="Update the engine: roost images update.")
    return rows


def ask_oracle(
    command: EngineCommand, model: Path, settings: ServerSettings, split: LayerSplit, *, timeout_s: float = TIMEOUT_S
) -> list[OracleRow]:
    """Run the oracle on a model's file.

    It knows no `--kv-unified`: a cache for one slot is unified anyway.

    Raises:
        RoostError: it is not there, does not end in time, cannot read the file, or cannot be asked for such a cache.
    """
    if settings.kv_unified and settings.parallel > 1:
        raise RoostError(f"{PROGRAM} cannot be asked for a unified cache.", fix="Use what the header says.")
    arguments = [word for word in settings_arguments(settings, split) if word not in UNIFIED]
    if not split.total:
        arguments += ["--device", "none"]
    program, folder = command(PROGRAM)
    asked = ["--model", str(model), "--fit-print", "on", "--no-repack", "--offline", "--log-verbosity", "1"]
    output = run(
        [*program, *asked, *arguments],
        cwd=folder,
        timeout_s=timeout_s,
        fix="See whether the engine can load the file: roost logs.",
    )
    return read_oracle(output)


def estimate_oracle(
    rows: Sequence[OracleRow], header: Header, by_header: Estimate, settings: ServerSettings, split: LayerSplit
) -> Estimate:
    """Return the oracle's figures as an estimate; `by_header` is the header's for the same settings and split.

    Raises:
        RoostError: it found other devices than the split has.
    """
    gpus = [row for row in rows if row.device != HOST_ROW]
    if split.total and len(gpus) != len(split.gpus):
        raise RoostError(
            f"The engine found {len(gpus)} graphics processors, {len(split.gpus)} were planned.",
            fix="See `roost doctor`.",
        )
    names = {row.device: f"GPU{index}" for row, index in zip(gpus, split.gpus, strict=False)} | {HOST_ROW: HOST}
    shape = hyperparameters(header)
    batch = ubatch_size(shape, settings)
    spare = max(0, batch - settings.parallel) * shape.vocabulary * F32
    tied = tied_bytes(header)
    holder = _output_device(split, shape.layer_count + 1)
    devices = []
    for row in rows:
        if row.device not in names:
            continue
        device = names[row.device]
        guess = by_header.on(device)
        compute = _exact(row.compute, guess.compute)
        if device == holder:
            compute = max(row.compute - spare, min(guess.compute, row.compute + MIB))
        kv = _exact(row.context, guess.kv + guess.output) - guess.output
        weights = _exact(row.model, guess.weights)
        if device == HOST and _exact(row.model, guess.weights + tied) == guess.weights + tied:
            weights = guess.weights
        devices.append(DeviceBytes(device, weights, max(0, kv), compute, guess.output, guess.other))
    devices.sort(key=lambda found: found.device != HOST)
    return Estimate(tuple(devices), "oracle")


def with_overhead(devices: Sequence[DeviceBytes], by_header: Estimate) -> Estimate:
    """Return measured buffers as an estimate: what is no buffer comes from the header's estimate."""
    return Estimate(tuple(replace(found, other=by_header.on(found.device).other) for found in devices), "measured")


def _output_device(split: LayerSplit, layers: int) -> str:
    if not split.total or layers <= 0:
        return HOST
    last = max(index for index, count in enumerate(split.gpu_layers) if count)
    return f"GPU{split.gpus[last]}"


def _exact(rounded_down: int, by_header: int) -> int:
    """Return the header's bytes where they round down to the oracle's, else the most that those may stand for."""
    return by_header if rounded_down <= by_header < rounded_down + MIB else rounded_down + MIB
