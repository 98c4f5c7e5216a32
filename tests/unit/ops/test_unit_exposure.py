"""How much of the machine a unit leaves to its service, as systemd-analyze scores it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from roost.ops.units import Service, render_systemd

REPOSITORY = Path(__file__).parents[3]
MOST = 2.0  # of 10; what is above has its reason in docs/services.md
CONFINED = Service(
    name="roost-thing",
    description="A thing",
    command=("/bin/true",),
    user="nobody",
    confined=True,
    writable=("/var/lib/thing",),
)


def exposure(service: Service, folder: Path) -> float:
    """Return the overall score of a service's unit."""
    unit = folder / f"{service.name}.service"
    unit.write_text(render_systemd(service))
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", found.stdout)
    assert score, found.stderr
    return float(score[1])


def test_a_confined_service_is_little_exposed(tmp_path: Path) -> None:
    assert exposure(CONFINED, tmp_path) <= MOST


def test_the_firewall_is_little_exposed_though_it_runs_as_root(tmp_path: Path) -> None:
    tasks = yaml.safe_load((REPOSITORY / "ansible/roles/firewall/tasks/install.yml").read_text())
    given = next(task["roost_service"] for task in tasks if "roost_service" in task)
    service = Service(
        name="roost-thing",
        description="",
        type=given["type"],
        command=("/bin/true",),
        confined=given["confined"],
        capabilities=tuple(given["capabilities"]),
    )
    assert exposure(service, tmp_path) <= MOST


@pytest.mark.parametrize("name", ["service_nomad_watch", "service_shutdown"])
def test_what_is_beside_nomad_is_little_exposed(tmp_path: Path, name: str) -> None:
    tasks = yaml.safe_load((REPOSITORY / "ansible/roles/nomad/tasks/main.yml").read_text())
    given = next(g for task in tasks if (g := task.get("roost_service", {})).get("name") == f"{{{{ {name} }}}}")
    service = Service(
        name="roost-thing",
        description="",
        type=given.get("type", "daemon"),
        command=("/bin/true",),
        confined=given["confined"],
    )
    assert exposure(service, tmp_path) <= MOST


def test_what_keeps_sockets_is_little_exposed(tmp_path: Path) -> None:
    tasks = yaml.safe_load((REPOSITORY / "ansible/roles/jobs/tasks/main.yml").read_text())
    given = next(task["roost_service"] for task in tasks if "roost_service" in task)
    folder = tuple(given["writable"])
    service = Service(
        "roost-thing", "", command=("/bin/true",), user="nobody", confined=given["confined"], writable=folder
    )
    assert exposure(service, tmp_path) <= MOST


def test_the_score_is_not_low_by_itself(tmp_path: Path) -> None:
    assert exposure(Service(name="roost-thing", description="", command=("/bin/true",)), tmp_path) > MOST


@pytest.mark.parametrize("field", ["devices", "capabilities", "generates_code"])
def test_what_a_service_is_given_back_costs_little(tmp_path: Path, field: str) -> None:
    given: dict[str, dict[str, object]] = {
        "devices": {"devices": ("/dev/dri/renderD128",)},
        "capabilities": {"capabilities": ("CAP_NET_BIND_SERVICE",)},
        "generates_code": {"generates_code": True},
    }
    assert exposure(replace(CONFINED, **given[field]), tmp_path) <= MOST  # type: ignore[arg-type]  # of a table
