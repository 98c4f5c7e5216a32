"""Prometheus' own tools, from the Debian package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.net import free_port, wait_until

START_TIMEOUT_S = 60.0


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; `tests/run integration` installs them."""
    found = shutil.which(name)
    assert found, f"{name} is missing: apt-get install prometheus"
    return found


def promtool(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool and return what it said."""
    argv = [program("promtool"), *map(str, words)]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)


@contextmanager
def prometheus(folder: Path, configuration: Path) -> Iterator[str]:
    """Run Prometheus until the context ends; yields its address. `folder` takes its data and its log."""
    port = free_port()
    argv = [
        program("prometheus"),
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
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], folder: Path, port: int) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Prometheus ended with {process.returncode}: {(folder / 'prometheus.log').read_text()}")
    done = subprocess.run(
        ["curl", "--silent", "--fail", "--noproxy", "*", f"http://127.0.0.1:{port}/-/ready"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
