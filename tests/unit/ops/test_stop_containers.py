"""What ends containers before Docker: only when the machine goes down, all of Nomad's, and never for long."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "app/roost/ops/stop_containers.sh"
ASKED = "ps --quiet --filter label=com.hashicorp.nomad.alloc_id"

Stop = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]


@pytest.fixture
def stop(tmp_path: Path) -> Stop:
    """Run it with doubles of systemctl and docker; return how it ended and what Docker was asked."""

    def run(state: str, *containers: str, fails: str = "") -> tuple[subprocess.CompletedProcess[str], list[str]]:
        asked = tmp_path / "asked"
        asked.touch()
        listed = tmp_path / "listed"
        listed.write_text("".join(f"{each}\n" for each in containers))
        doubles = {
            "systemctl": f"echo {state}; [ {state} = running ]",
            "docker": f'echo "$*" >>{asked}; [ "$1" != "{fails}" ] || exit 1; [ "$1" != ps ] || cat {listed}',
        }
        for name, text in doubles.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        ended = subprocess.run(
            ["dash", str(SCRIPT), "15"],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended, asked.read_text().splitlines()

    return run


@pytest.mark.parametrize("state", ["running", "degraded", "starting"])
def test_a_service_that_is_taken_away_takes_no_container_with_it(stop: Stop, state: str) -> None:
    ended, asked = stop(state, "one")
    assert (ended.returncode, asked) == (0, [])


def test_all_containers_of_nomad_end_together_when_the_machine_goes_down(stop: Stop) -> None:
    ended, asked = stop("stopping", "one", "two")
    assert asked == [ASKED, "stop -t 15 one two"]
    assert (ended.returncode, ended.stdout) == (0, "2 containers ended before Docker.\n")


def test_without_containers_nothing_is_stopped(stop: Stop) -> None:
    ended, asked = stop("stopping")
    assert (ended.returncode, asked) == (0, [ASKED])


@pytest.mark.parametrize("step", ["ps", "stop"])
def test_a_docker_that_refuses_is_a_failure(stop: Stop, step: str) -> None:
    ended, _ = stop("stopping", "one", fails=step)
    assert (ended.returncode != 0, ended.stdout) == (True, "")
