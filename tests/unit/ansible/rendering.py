"""Templates of roles, rendered by Ansible itself with the repository's defaults: no machine is needed for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
HOSTS = {"one": "192.0.2.11", "two": "192.0.2.12", "three": "2001:db8::13"}
SYSTEMD = {
    "init": "systemd",
    "hostname": "one",
    "container": "",
    "docker": {"present": True, "running": True, "ours": True},
}


def render(
    folder: Path, role: str, template: str, variants: Mapping[str, Mapping[str, Any]], *, hosts: int = 3
) -> dict[str, str]:
    """Return the text of a role's template for each variant of variables, on the first of `hosts` machines.

    Raises:
        AssertionError: Ansible failed; the message has what it printed.
    """
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    addresses = dict(list(HOSTS.items())[:hosts])
    entries = {
        name: {"ansible_connection": "local", "hardware_node_address": address, "hardware_host": SYSTEMD}
        for name, address in addresses.items()
    }
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"fleet": {"hosts": entries}}))
    where = ROOT / "ansible/roles" / role
    tasks = [
        {
            "name": name,
            "ansible.builtin.template": {
                "src": str(where / "templates" / template),
                "dest": str(folder / f"{name}.out"),
                "mode": "0644",
            },
            "vars": dict(variables),
        }
        for name, variables in variants.items()
    ]
    _play(folder, [where], tasks)
    return {name: (folder / f"{name}.out").read_text() for name in variants}


def decide(
    folder: Path, role: str, file: str, task: str, variants: Mapping[str, Mapping[str, Any]], *, check: bool = False
) -> dict[str, bool]:
    """Return for each variant of variables whether a role does a task (of one file, by its name), by its `when`.

    Raises:
        AssertionError: there is no such task, or Ansible failed; the message has what it printed.
    """
    where = ROOT / "ansible/roles" / role
    done_when = task_of(role, file, task)["when"]
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    entry = {"ansible_connection": "local", "hardware_node_address": HOSTS["one"], "hardware_host": SYSTEMD}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"fleet": {"hosts": {"one": entry}}}))
    tasks = [
        {
            "name": name,
            "when": done_when,
            "vars": dict(variables),
            "check_mode": False,
            "ansible.builtin.copy": {"content": "", "dest": str(folder / f"{name}.out"), "mode": "0644"},
        }
        for name, variables in variants.items()
    ]
    _play(folder, [where], tasks, *(["--check"] if check else []))
    return {name: (folder / f"{name}.out").exists() for name in variants}


def task_of(role: str, file: str, task: str) -> dict[str, Any]:
    """Return one task of a role's file, by its name.

    Raises:
        AssertionError: there is none.
    """
    tasks: list[dict[str, Any]] = yaml.safe_load((ROOT / "ansible/roles" / role / "tasks" / file).read_text())
    found = [one for one in tasks if one["name"] == task]
    assert found, f"{role}/{file} has no task {task!r}"
    return found[0]


def evaluate(
    folder: Path, roles: Sequence[str], expression: str, hosts: Mapping[str, Mapping[str, Any]], **extra: object
) -> dict[str, Any]:
    """Return what a Jinja expression over variables of roles is on each machine of a fleet.

    `hosts` has the machines' variables by name; `extra` holds for all of them, as bootstrap.sh gives host.yaml.

    Raises:
        AssertionError: Ansible failed; the message has what it printed.
    """
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"fleet": {"hosts": {n: dict(v) for n, v in hosts.items()}}}))
    copied = {
        "content": f"{{{{ {expression} | to_json }}}}",
        "dest": str(folder / "{{ inventory_hostname }}.json"),
        "mode": "0600",
    }
    where = [ROOT / "ansible/roles" / role for role in roles]
    _play(folder, where, [{"ansible.builtin.copy": copied}], "-e", json.dumps(extra), hosts="fleet")
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in hosts}


def _play(folder: Path, roles: Sequence[Path], tasks: list[dict[str, Any]], *options: str, hosts: str = "one") -> None:
    files = [str(path) for role in roles if (path := role / "vars/main.yml").exists()]
    play = {"hosts": hosts, "gather_facts": False, "tasks": tasks, "vars_files": files}
    (folder / "play.yaml").write_text(yaml.safe_dump([play], sort_keys=False))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(ROOT / "app")}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yaml", "play.yaml",
         "-e", f"ansible_python_interpreter={sys.executable}", *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
