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
    # main imports validate and install where a role has them.
    parts = ("main", "validate", "install")
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


def applied(without: set[str]) -> dict[str, set[str]]:
    """Return the tags under which each role of the playbook runs, but for roles with one of those."""
    found: dict[str, set[str]] = {}

    def walk(part: Any) -> None:  # noqa: ANN401 (YAML)
        if isinstance(part, list):
            for entry in part:
                walk(entry)
        elif isinstance(part, dict):
            name = part.get("role") or part.get("ansible.builtin.import_role", {}).get("name")
            if name:
                found.setdefault(name, set()).update(part.get("tags", []))
            for entry in part.values():
                walk(entry)

    walk(yaml.safe_load((ROOT / "playbook.yaml").read_text()))
    return {name: tags for name, tags in found.items() if not tags & without}


def test_the_folders_that_a_role_uses_are_made_under_its_tags_too() -> None:
    """A new release's folder is there when somebody runs a part of the playbook alone."""
    layout = ROOT / "ansible/roles/layout"
    computed = yaml.safe_load((layout / "vars/main.yml").read_text())
    paths = str([value for name, value in computed.items() if name.startswith("layout_folders")])
    folders = set(re.findall(r"'path': '{{ (\w+)", paths)) - {"roost_cache_dir"}  # that one bootstrap.sh has made
    assert "roost_listen_dir" in folders
    (making,) = [task for task in yaml.safe_load((layout / "tasks/main.yml").read_text()) if "roost_layout" in task]
    for name, tags in applied(without={"always", "layout", "preflight", "verify"}).items():
        read = "".join(texts(ROOT / "ansible/roles" / name, "tasks", "vars", "templates").values())
        if any(re.search(rf"\b{folder}\b", read) for folder in folders):
            assert tags <= set(making.get("tags", [])), name


def test_what_is_written_down_of_jobs_is_written_with_them() -> None:
    tasks = yaml.safe_load((ROOT / "ansible/roles/layout/tasks/main.yml").read_text())
    (writing,) = [task for task in tasks if "roost_texts" in task]
    assert writing.get("tags") == ["jobs"]
