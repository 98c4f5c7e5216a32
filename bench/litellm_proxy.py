"""The LiteLLM proxy, from a virtual environment of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.net import free_port, wait_until

from bench.environments import LITELLM_PROXY, environment
from bench.scripted import MODEL

KEY = "sk-litellm-of-the-bench"
START_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class LiteLlm:
    """A running proxy."""

    process: subprocess.Popen[bytes]
    port: int


@contextmanager
def litellm_before(folder: Path, engine_port: int, cores: frozenset[int]) -> Iterator[LiteLlm]:
    """Run one worker of the proxy in front of one model server: with a key, without a database, without its log."""
    port = free_port()
    model = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{engine_port}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    kept = {"PATH", "LANG", "LC_ALL"}
    variables = {
        **{name: value for name, value in os.environ.items() if name in kept},
        "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
    }  # fmt: skip
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, sorted(cores))),
             environment(LITELLM_PROXY) / "bin/litellm", "--config", file,
             "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
            env=variables, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        wait_until(lambda: _up(process, port, folder / "litellm.log"), START_TIMEOUT_S, "LiteLLM to answer", 0.2)
        yield LiteLlm(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _up(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"LiteLLM ended with {process.returncode}: {log.read_text()[-2000:]}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/liveliness")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
