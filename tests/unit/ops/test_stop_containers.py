"""What ends containers before Docker at a shutdown: all of Nomad's, in time, in order, and only then."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
ROLE = REPOSITORY / "ansible/roles/nomad"
SCRIPT = REPOSITORY / "app/roost/ops/stop_containers.sh"
ASKED = "ps --quiet --filter label=com.hashicorp.nomad.alloc_id"
GRACE_S = 20
# As systemd 252 and 257 say it, with --no-legend.
GOES_DOWN = "1234 shutdown.target start waiting"

Stop = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]


@pytest.fixture
def stop(tmp_path: Path) -> Stop:
    """Run it with doubles of systemctl and docker; return how it ended and what Docker was asked."""

    def run(jobs: str, *containers: str, fails: str = "") -> tuple[subprocess.CompletedProcess[str], list[str]]:
        asked, listed = tmp_path / "asked", tmp_path / "listed"
        asked.touch()
        listed.write_text("".join(f"{each}\n" for each in containers))
        doubles = {
            "systemctl": f'[ "$*" = "list-jobs --no-legend shutdown.target" ] || exit 9; echo "{jobs}"',
            "docker": f"""echo "$*" >>{asked}
if [ "$1" = "{fails}" ] || [ -e "$DOCKER_CONFIG" ]; then exit 1; fi
[ "$1" != ps ] || cat {listed}""",
        }
        for name, text in doubles.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        ended = subprocess.run(
            ["dash", str(SCRIPT), str(GRACE_S)],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DOCKER_CONFIG": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended, asked.read_text().splitlines()

    return run


@pytest.mark.parametrize("jobs", ["", "No jobs listed."])
def test_a_service_that_is_taken_away_takes_no_container_with_it(stop: Stop, jobs: str) -> None:
    ended, asked = stop(jobs, "one")
    assert (ended.returncode, asked) == (0, [])


def test_all_containers_of_nomad_end_together_when_the_machine_goes_down(stop: Stop) -> None:
    ended, asked = stop(GOES_DOWN, "one", "two")
    assert asked == [ASKED, f"stop -t {GRACE_S} one two"]
    assert (ended.returncode, ended.stdout) == (0, "2 containers ended before Docker.\n")


def test_without_containers_nothing_is_stopped(stop: Stop) -> None:
    ended, asked = stop(GOES_DOWN)
    assert (ended.returncode, asked) == (0, [ASKED])


@pytest.mark.parametrize("step", ["ps", "stop"])
def test_a_docker_that_refuses_is_said_to_be_one(stop: Stop, step: str) -> None:
    ended, _ = stop(GOES_DOWN, "one", fails=step)
    assert (ended.returncode != 0, ended.stdout) == (True, "")


def test_it_comes_between_nomad_and_docker() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    given = next(g for task in tasks if (g := task.get("roost_service", {})).get("name") == "{{ service_shutdown }}")
    assert given["type"] == "oneshot"  # stays active, so that a shutdown stops it
    # What starts first ends last.
    assert given["after"] == ["{{ nomad_docker }}"]
    assert given["before"] == ["{{ service_nomad }}"]


def test_containers_have_as_long_as_the_job_that_takes_longest() -> None:
    """The agent writes down what its cut answers used between the end of its drain and its end."""
    jobs = "".join(path.read_text() for path in (REPOSITORY / "nomad").glob("*.j2"))
    longest = max(int(seconds) for seconds in re.findall(r'kill_timeout = "(\d+)s"', jobs))
    assert yaml.safe_load((ROLE / "vars/main.yml").read_text())["nomad_containers_grace_s"] == longest == GRACE_S
