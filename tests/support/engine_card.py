"""The real engine on a graphics processor, reached as the product's jobs reach it: what it would take, what it took."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from roost.fleet.engine_args import Offload, ServerFiles, offload_args, server_args
from roost.models.estimate.oracle import settings_arguments
from roost.models.footprint import LayerSplit, ServerSettings
from tests.support.net import free_port, wait_until
from tests.support.processes import end

MIB = 1 << 20
READY_S = 300.0
STOP_S = 60.0
KEY = "engine-key-of-the-card"
CACHE = re.compile(r"llama_(?:kv_cache|memory_recurrent): size = +(\d+\.\d+) MiB")
BUFFER = re.compile(r"(\S+)\s+(output|compute) buffer size = +(\d+\.\d+) MiB")
PROJECTED = re.compile(r"projected to use (\d+) MiB of device memory")


@dataclass(frozen=True)
class Card:
    """One graphics processor: what the engine calls it, the variables that show it, the server's command and folder.

    `used_mib` says what is held of its memory now.
    """

    name: str
    engine_name: str
    command: tuple[str, ...]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    used_mib: Callable[[], int] = lambda: 0

    def offload(self, layers: int) -> Offload:
        """Return what puts so many layers on it."""
        return Offload(LayerSplit((0,), (layers,)), (self.engine_name,))


@dataclass(frozen=True)
class Projected:
    """Bytes that the engine would take with all layers on a card; `weights` and `total` to the MiB, on the card."""

    weights: int
    kv: int
    compute: int
    host_compute: int
    output: int

    @property
    def total(self) -> int:
        """Return what lies on the card."""
        return self.weights + self.kv + self.compute


@contextmanager
def process(card: Card, arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run the engine's server until the context ends; its log is the process's output."""
    running = subprocess.Popen(
        [*card.command, *arguments], cwd=card.folder, env={**environment, **card.env}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def projected(
    card: Card, model: Path, settings: ServerSettings, layers: int, environment: Mapping[str, str]
) -> Projected:
    """Return what the server computes before it takes any memory (`--fit`); works on sparse files of any size."""
    kv = output = compute = host_compute = 0.0
    last: list[str] = []
    split = LayerSplit((0,), (layers,))
    with tempfile.TemporaryDirectory() as place:
        arguments = ["--model", str(model), *settings_arguments(settings, split), *offload_args(card.offload(layers))]
        arguments += ["--host", f"{place}/s.sock", "--offline", "--cache-ram", "0", "--no-warmup"]
        with process(card, [*arguments, "--log-verbosity", "5"], environment) as running:
            log: IO[str] | None = running.stdout
            assert log is not None
            for line in log:
                last = [*last[-5:], line]
                if match := CACHE.search(line):
                    kv += float(match[1])
                elif match := BUFFER.search(line):
                    size = float(match[3])
                    if match[2] == "output":
                        output = size
                    elif match[1] == card.engine_name:
                        compute = size
                    else:
                        host_compute += size
                elif match := PROJECTED.search(line):
                    weights = int(match[1]) - kv - compute
                    sizes = (weights, kv, compute, host_compute, output)
                    return Projected(*(round(size * MIB) for size in sizes))
    raise AssertionError(f"the engine does not take {model.name}: {''.join(last)}")


@dataclass
class Loaded:
    """A server that has its model on the card: where it answers, and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def alive(self) -> bool:
        """Say whether it still runs."""
        return self.process.poll() is None

    def ask(self, method: str, path: str, body: object = None, timeout_s: float = 300.0) -> tuple[int, bytes]:
        """Ask it something; status 0 means that nothing answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


@contextmanager
def loaded(
    card: Card, model: Path, settings: ServerSettings, layers: int, folder: Path, environment: Mapping[str, str],
    threads: int = 0,
) -> Iterator[Loaded]:  # fmt: skip
    """Start a server with the arguments of a job until the context ends; it is ready when the context begins."""
    port, key, log = free_port(), folder / "engine-key", folder / "engine.log"
    key.write_text(KEY)
    argv = [*card.command, *server_args(
        ServerFiles(str(model)), settings, card.offload(layers), alias="card", bind="127.0.0.1", threads=threads,
        port=str(port), key_file=str(key),
    )]  # fmt: skip
    with log.open("wb") as stream:
        running = subprocess.Popen(
            argv, cwd=card.folder, env={**environment, **card.env}, stdout=stream, stderr=subprocess.STDOUT
        )
    found = Loaded(running, port, log)
    try:
        wait_until(lambda: _ready(found), READY_S, "the model server to be ready", step_s=0.1)
        yield found
    finally:
        end(running, STOP_S)


def _ready(server: Loaded) -> bool:
    if not server.alive():
        raise RuntimeError(f"the model server ended with {server.process.returncode}: {server.log.read_text()[-2000:]}")
    return server.ask("GET", "/health")[0] == 200
