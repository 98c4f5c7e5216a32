"""Prometheus' own programs, from the tree that the product makes of the Debian package."""

from __future__ import annotations

import functools
import http.client
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.ensure import Workshop
from roost.fleet.artifacts.monitoring import monitoring_command
from roost.fleet.artifacts.plan import Choices, make_plan
from tests.support.engine import REPOSITORY, cache_dir
from tests.support.net import free_port, wait_until
from tests.support.processes import end

START_TIMEOUT_S = 60.0


@functools.cache
def monitoring_tree() -> Path:
    """Return the tree of Prometheus, with promtool; makes it in the tests' cache if it is not there."""
    defaults = yaml.safe_load((REPOSITORY / "group_vars" / "all.yaml").read_text())
    folder = cache_dir() / "test-artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    choices = Choices(
        runtime="local",
        release_dir=REPOSITORY,
        cache_dir=cache_dir(),
        artifacts_dir=folder,
        monitoring_suite=defaults["monitoring_suite"],
        monitoring_packages=(*defaults["monitoring_packages"], "promtool"),
        arch={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    )
    workshop = Workshop(choices, Docker({}), notify=lambda _text: None)
    assert choices.monitoring
    with workshop.stack:
        resolution = workshop.decide(choices.monitoring, update=False)
        tree = workshop.monitoring_tree(make_plan(choices, None, None, resolution), folder)
    workshop.book.keep(resolution)
    return tree


def promtool(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool and return what it said."""
    argv = [*monitoring_command(monitoring_tree(), "promtool"), *map(str, words)]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)


@contextmanager
def prometheus(folder: Path, configuration: Path) -> Iterator[str]:
    """Run Prometheus until the context ends; yields its address. `folder` takes its data and its log."""
    port = free_port()
    argv = [
        *monitoring_command(monitoring_tree()),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.size=64MB",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_until(lambda: _ready(process, folder, port), START_TIMEOUT_S, "Prometheus to be ready", 0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process, 20)


def _ready(process: subprocess.Popen[bytes], folder: Path, port: int) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Prometheus ended with {process.returncode}: {(folder / 'prometheus.log').read_text()}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
