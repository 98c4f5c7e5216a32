"""The roles keep their contract: every variable specified, defaulted once. Literals: tests/support/literals.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLES = sorted(p for p in (ROOT / "ansible/roles").iterdir() if p.is_dir())
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "group_vars/all.yaml").read_text())


def texts(role: Path, *folders: str) -> dict[Path, str]:
    return {p: p.read_text() for f in folders for p in sorted((role / f).rglob("*")) if p.is_file()}


def specs(role: Path) -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    return {entry: spec["options"] for entry, spec in loaded.items()}


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
def test_every_variable_a_role_reads_is_in_its_argument_specs(role: Path) -> None:
    # main imports these where a role has them.
    parts = ("main", "validate", "install", "anew")
    entry_points: list[tuple[str, list[str], tuple[str, ...]]] = [
        ("main", [f"tasks/{name}.yml" for name in parts], ("vars", "templates")),
        ("uninstall", ["tasks/uninstall.yml"], ("vars",)),
    ]
    for entry, tasks, places in entry_points:
        there = [role / task for task in tasks if (role / task).exists()]
        if not there:
            continue
        read = "".join(path.read_text() for path in there) + "".join(texts(role, *places).values())
        used = {name for name in DEFAULTS if re.search(rf"\b{name}\b", read)}
        assert used == set(specs(role)[entry]), f"{role.name}/{entry}"


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
def test_every_option_has_a_type_a_description_and_a_default_in_group_vars(role: Path) -> None:
    for entry, options in specs(role).items():
        for name, option in options.items():
            assert name in DEFAULTS, f"{role.name}/{entry}: {name} has no default in group_vars/all.yaml"
            assert option["type"], name
            assert option["description"].endswith("."), name


def test_every_default_is_read_somewhere() -> None:
    places = [*texts(ROOT / "ansible", "roles").values(), (ROOT / "playbook.yaml").read_text()]
    places += [p.read_text() for p in (ROOT / "app/roost").rglob("*.py")] + [(ROOT / "uninstall.yaml").read_text()]
    everything = "".join(places) + "".join(str(v) for v in DEFAULTS.values())
    everything += "".join(p.read_text() for p in (ROOT / "bootstrap.sh", *(ROOT / "bootstrap").glob("*.sh")))
    unread = [name for name in DEFAULTS if not re.search(rf"\b{name}\b", everything)]
    assert unread == []


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
def test_task_names_start_with_the_role(role: Path) -> None:
    for path, text in texts(role, "tasks").items():
        for task in yaml.safe_load(text):
            assert str(task["name"]).lower().startswith(f"{role.name} | "), f"{path}: {task['name']}"


def test_where_there_is_nothing_to_do_only_plays_that_look_have_machines() -> None:
    plays = {play["name"]: play["hosts"] for play in yaml.safe_load((ROOT / "playbook.yaml").read_text())}
    # Each way to be among the machines that are changed: new ones have no footprint, and the order is not settled then.
    changing = {
        name
        for name, hosts in plays.items()
        if re.search(r":!fleet_settled$|&fleet_new|^fleet_(new|order(_early)?)$", hosts)
    }
    assert set(plays) - changing == {"Look at the machines, and decide", "Ask for an answer"}
