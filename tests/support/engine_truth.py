"""What the real engine needs, by its own word: its server's measuring phase, its oracle, and a whole start."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from roost.fleet.artifacts.engine import engine_command
from roost.fleet.engine_start import read_start
from roost.fleet.job_memory import measured_devices
from roost.models.estimate.oracle import ask_oracle, settings_arguments
from roost.models.footprint import DeviceBytes, LayerSplit, ServerSettings
from tests.support.engine import engine_tree

MIB = 1 << 20
CPU_ONLY = LayerSplit()
TIMEOUT_S = 60.0
CACHE = re.compile(r"llama_(?:kv_cache|memory_recurrent): size = +(\d+\.\d+) MiB")
BUFFER = re.compile(r"(output|compute) buffer size = +(\d+\.\d+) MiB")


@dataclass(frozen=True)
class Truth:
    """Bytes that the engine's server would take; `weights` rounded down to MiB."""

    weights: int
    kv: int
    compute: int
    output: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.weights + self.kv + self.compute + self.output


@cache
def engine_program(program: str) -> tuple[tuple[str, ...], Path]:
    """Return the command of a program of the engine, and its folder."""
    argv, folder = engine_command(engine_tree(), program)
    return tuple(argv), folder


@cache
def weights_of(model: Path) -> int:
    """Return the bytes of weights that `llama-fit-params` says, rounded down to MiB."""
    return ask_oracle(engine_program, model, ServerSettings(512), CPU_ONLY)[-1].model


@contextmanager
def _server(model: Path, settings: ServerSettings, *extra: str) -> Iterator[IO[str]]:
    """Run a server on a socket file and give its log; it is killed at the end."""
    argv, folder = engine_program("llama-server")
    with tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(
            [
                *argv, "--model", str(model), *settings_arguments(settings, CPU_ONLY), "--host", f"{place}/s.sock",
                "--no-repack", "--offline", "--cache-ram", "0", *extra,
            ],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield process.stdout
        finally:
            process.kill()
            process.communicate()


def measuring_phase(model: Path, settings: ServerSettings) -> Truth:
    """Return what the server computes before it takes any memory (`--fit`); works on sparse files of any size."""
    kv = output = 0.0
    last: list[str] = []
    with _server(model, settings, "--no-warmup", "--log-verbosity", "5") as log:
        for line in log:
            last = [*last[-5:], line]
            if match := CACHE.search(line):
                kv += float(match[1])
            elif match := BUFFER.search(line):
                if match[1] == "compute":
                    return Truth(weights_of(model), round(kv * MIB), round(float(match[2]) * MIB), round(output * MIB))
                output = float(match[2])
    raise AssertionError(f"the engine does not take {model.name}: {''.join(last)}")


def whole_start(model: Path, settings: ServerSettings) -> DeviceBytes:
    """Start a server for good, and return the buffers that it took."""
    lines = []
    with _server(model, settings, "--log-verbosity", "4") as log:
        for line in log:
            lines.append(line)
            if "model loaded" in line:
                break
    start = read_start("".join(lines))
    found = measured_devices(start, CPU_ONLY) if start is not None else None
    assert found is not None, "".join(lines[-8:])
    return found[0]
