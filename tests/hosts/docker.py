"""The docker command line, as far as the disposable hosts need it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

LABEL_KEY = "org.roost.test"
# Suites that run side by side (pytest-xdist, scenarios of Molecule) each know their own.
SUITE = os.environ.get("ROOST_TEST_SUITE") or os.environ.get("PYTEST_XDIST_WORKER", "alone")
LABEL = f"{LABEL_KEY}={SUITE}"
IMAGE_LABEL = "org.roost.test.root"


@dataclass(frozen=True)
class Result:
    """What a finished program left: exit code, standard output and error, and how long it took in seconds."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Everything it printed."""
        return self.out + self.err


class DockerError(Exception):
    """A docker command of the harness failed; the message has what it printed."""


def call(argv: Sequence[str], *, stdin: bytes | None = None, timeout_s: float = 600) -> Result:
    """Run a program and return what it left, whatever its exit code.

    Raises:
        subprocess.TimeoutExpired: it ran longer than `timeout_s` seconds.
    """
    done = subprocess.run(
        list(argv),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def docker(*args: str, stdin: bytes | None = None, timeout_s: float = 600) -> str:
    """Run `docker ARGS` and return its standard output without the last line end.

    Raises:
        DockerError: it failed.
    """
    done = call(["docker", *args], stdin=stdin, timeout_s=timeout_s)
    if done.code != 0:
        raise DockerError(f"docker {' '.join(args)}: exit code {done.code}\n{done.text}")
    return done.out.strip()


def sweep(label: str = LABEL_KEY) -> list[str]:
    """Remove every container, volume and network with the label; return the names of the containers."""
    label = f"label={label}"
    containers = docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    for kind in ("volume", "network"):
        if names := docker(kind, "ls", "--quiet", "--filter", label).split():
            docker(kind, "rm", *names)
    return containers
