"""Nomad itself calls every golden job valid, and a broken one not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from roost.fleet.jobs import Driver
from roost.fleet.monitoring.job import MonitoringPrograms
from tests.support.example_fleets import INVENTORIES, TIERS, facts, planned, texts_of_tier
from tests.support.example_fleets import texts as texts_of_plan
from tests.support.nomad import nomad_program
from tests.unit.fleet.golden_jobs import texts
from tests.unit.fleet.monitoring.test_job import TREE
from tests.unit.fleet.monitoring.test_job import text_of as monitoring_text
from tests.unit.fleet.test_jobs import NAMES_OF_STRANGERS, render_with_template
from tests.unit.fleet.test_search_job import text_of as search_text

pytestmark = pytest.mark.timeout(1800)  # whichever comes first may have to build Nomad, which takes ten minutes
TEXTS = texts()


@pytest.fixture(scope="module")
def nomad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program of the version that the product uses."""
    return nomad_program(tmp_path_factory.mktemp("nomad"))


def validate(nomad: Path, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = folder / "job.hcl"
    path.write_text(text)
    # nobody answers there, so that Nomad checks by itself
    argv = [str(nomad), "job", "validate", "-address", "http://127.0.0.1:1", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_every_golden_job_is_valid(nomad: Path, tmp_path: Path) -> None:
    for name, text in TEXTS.items():
        done = validate(nomad, tmp_path, text)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        assert "validation successful" in done.stdout


def test_the_job_of_prometheus_is_valid(nomad: Path, tmp_path: Path) -> None:
    ways: dict[Driver, MonitoringPrograms] = {
        "docker": MonitoringPrograms(image="roost/monitoring:1"),
        "raw_exec": TREE,
    }
    for driver, programs in ways.items():
        done = validate(nomad, tmp_path, monitoring_text(driver, programs))
        assert done.returncode == 0, f"{driver}: {done.stdout}{done.stderr}"


def test_the_job_of_searxng_is_valid(nomad: Path, tmp_path: Path) -> None:
    drivers: tuple[Driver, ...] = ("docker", "raw_exec")
    for driver in drivers:
        done = validate(nomad, tmp_path, search_text(driver))
        assert done.returncode == 0, f"{driver}: {done.stdout}{done.stderr}"


def test_a_broken_job_is_not(nomad: Path, tmp_path: Path) -> None:
    text = TEXTS["everything.docker.hcl"]
    for old, new in (("count = 1", 'count = "many"'), ('driver = "docker"', ""), ("affinity {", "affection {")):
        assert old in text
        assert validate(nomad, tmp_path, text.replace(old, new)).returncode != 0, new


@pytest.mark.parametrize("name", NAMES_OF_STRANGERS)
def test_names_are_names_to_nomad_too(nomad: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "job.hcl"
    path.write_text(render_with_template(name))
    argv = [str(nomad), "job", "run", "-output", "-address", "http://127.0.0.1:1", str(path)]
    task = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)["Job"]["TaskGroups"][0]
    args = task["Tasks"][0]["Config"]["args"]
    assert args[args.index("--chat-template") + 1] == name
    assert "${NOMAD_PORT_http}" in args


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_every_job_of_every_example_inventory_is_valid(nomad: Path, tmp_path: Path, inventory: str) -> None:
    surveys, decided = planned(inventory)
    machines = {survey.machine: facts(survey.machine) for survey in surveys}
    for name, text in texts_of_plan(decided, machines).items():
        done = validate(nomad, tmp_path, text)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("tier", TIERS)
def test_the_job_of_every_model_is_valid_on_a_machine_of_every_tier(nomad: Path, tmp_path: Path, tier: str) -> None:
    for name, text in texts_of_tier(tier).items():
        done = validate(nomad, tmp_path, text)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
