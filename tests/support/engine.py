"""A real `llama-server` with the smallest model, for tests and measurements; made by the product's own code.

`$ROOST_TEST_ENGINE_TREE` and `$ROOST_TEST_MODEL` name ready ones; else both are made in `$ROOST_CACHE_DIR`, or in a
folder of the user's cache, and stay there. `$ROOST_TEST_ENGINE_ARGS`: more arguments for every server, such as
`--gpu-layers all` or `--threads 4`.
"""

from __future__ import annotations

import http.client
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.engine import engine_command
from roost.fleet.artifacts.ensure import Workshop
from roost.fleet.artifacts.plan import Choices
from roost.models.catalogue import load_catalogue
from roost.models.fetch import Places
from tests.support.fetching import ensure_model
from tests.support.net import free_port, wait_until
from tests.support.processes import end

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m-instruct"
ENGINE_KEY = "engine-key-of-the-tests"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


def cache_dir() -> Path:
    """Return the folder where downloads are kept between runs."""
    given = os.environ.get("ROOST_CACHE_DIR")
    return Path(given) if given else Path.home() / ".cache" / "roost"


def engine_tree(*more: str) -> Path:
    """Return an engine tree, with `more` packages than the default ones; makes one if there is none."""
    given = os.environ.get("ROOST_TEST_ENGINE_TREE")
    if given and not more:
        return Path(given)
    defaults = yaml.safe_load((REPOSITORY / "group_vars" / "all.yaml").read_text())
    folder = cache_dir() / "test-artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    choices = Choices(
        runtime="local",
        release_dir=REPOSITORY,
        cache_dir=cache_dir(),
        artifacts_dir=folder,
        engine_suite=defaults["engine_suite"],
        engine_packages=(*defaults["engine_packages"], *more),
        arch={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    )
    workshop = Workshop(choices, Docker({}), notify=lambda _text: None)
    with workshop.stack:
        resolution = workshop.decide(choices.engine, update=False)
        tree = workshop.engine_tree(resolution, folder)
    workshop.book.keep(resolution)
    return tree


def model_file() -> Path:
    """Return the file of the smallest model, verified; fetches it if it is not there."""
    given = os.environ.get("ROOST_TEST_MODEL")
    if given:
        return Path(given)
    model = load_catalogue(REPOSITORY / "group_vars" / "models.yaml").get(MODEL)
    return ensure_model(MODEL, model, Places(cache_dir() / "test-models", cache_dir())).path


@dataclass
class EngineProcess:
    """A running model server."""

    process: subprocess.Popen[bytes]
    port: int
    key_file: Path

    @property
    def base_url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask it something; status 0 means that nothing answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {ENGINE_KEY}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()


def start_server(folder: Path, extra: Sequence[str] = (), port: int = 0) -> EngineProcess:
    """Start a model server with two slots; `folder` takes its key and its log. Whoever calls ends its process."""
    key_file = folder / "engine-key"
    key_file.write_text(ENGINE_KEY)
    number = port or free_port()
    argv, cwd = engine_command(engine_tree())
    argv += ["--model", str(model_file()), "--alias", MODEL, "--host", "127.0.0.1", "--port", str(number)]
    argv += ["--api-key-file", str(key_file), "--ctx-size", "8192", "--parallel", "2", "--cache-ram", "64"]
    argv += shlex.split(os.environ.get("ROOST_TEST_ENGINE_ARGS", ""))
    with (folder / f"engine-{number}.log").open("ab") as log:
        process = subprocess.Popen([*argv, *extra], cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
    return EngineProcess(process, number, key_file)


@contextmanager
def llama_server(folder: Path, extra: Sequence[str] = (), port: int = 0) -> Iterator[EngineProcess]:
    """Run a model server with two slots until the context ends; `folder` takes its key and its log."""
    engine = start_server(folder, extra, port)
    process = engine.process
    try:
        wait_until(lambda: _is_ready(engine), START_TIMEOUT_S, "the model server to be ready")
        yield engine
    finally:
        end(process, STOP_TIMEOUT_S)


def _is_ready(engine: EngineProcess) -> bool:
    if engine.process.poll() is not None:
        raise RuntimeError(f"the model server ended with {engine.process.returncode}")
    return engine.get("/health")[0] == 200
