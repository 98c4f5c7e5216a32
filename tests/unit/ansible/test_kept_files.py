"""What a machine can go back to: all that its turn writes, and the secrets that it takes away from a former server."""

from __future__ import annotations

from typing import Any

import yaml

from roost.ops.pki import SECRET_MAKERS
from tests.unit.ansible.rendering import ROOT

WRITERS = {f"ansible.builtin.{name}" for name in ("template", "copy")}
# No model's answer hangs on these, and the next run writes them again.
NOT_PUT_BACK = {
    "users": "who may log in is the operator's word, not a state that an update tries",
    "time": "the servers that are asked for the time",
    "tailscale": "the overlay that a machine has joined stays joined",
}


def tasks(role: str, *, entry: str = "") -> list[dict[str, Any]]:
    """Return the tasks of a role, those in blocks too."""
    found: list[dict[str, Any]] = []
    for path in sorted((ROOT / "ansible/roles" / role / "tasks").glob("*.yml")):
        if path.stem == "uninstall" or (entry and path.stem != entry):
            continue
        open_tasks = list(yaml.safe_load(path.read_text()))
        while open_tasks:
            task = open_tasks.pop()
            found.append(task)
            for part in ("block", "rescue", "always"):
                open_tasks += task.get(part, [])
    return found


def roles_of_a_turn() -> set[str]:
    plays = {play["name"]: play for play in yaml.safe_load((ROOT / "playbook.yaml").read_text())}
    (turn,) = plays["Change the other machines at work"]["tasks"]
    return {task["ansible.builtin.import_role"]["name"] for task in turn["block"]}


def kept() -> set[str]:
    known = yaml.safe_load((ROOT / "ansible/roles/keep/vars/main.yml").read_text())
    return {resolved("keep", name) for name in known["keep_files"]}


def resolved(role: str, text: str) -> str:
    """Return a path with the role's own variables, and the fleet's, replaced by what they are made of."""
    path = ROOT / "ansible/roles" / role / "vars/main.yml"
    own = yaml.safe_load(path.read_text()) if path.exists() else {}
    for name, value in (own | yaml.safe_load((ROOT / "group_vars/fleet.yaml").read_text())).items():
        if isinstance(value, str):
            text = text.replace(f"{{{{ {name} }}}}", value)
    return text


def test_secrets_that_a_turn_withdraws_come_back_with_the_rest() -> None:
    assert {f"{{{{ roost_secrets_dir }}}}/{name}" for name in SECRET_MAKERS} <= kept()


def test_every_file_that_a_turn_writes_can_be_put_back() -> None:
    written = {
        resolved(role, task[writer]["dest"])
        for role in roles_of_a_turn() - set(NOT_PUT_BACK)
        for task in tasks(role)
        for writer in WRITERS & set(task)
    }
    docker = {"{{ docker_config_file }}", "{{ docker_unit_dir }}/roost.conf"}
    assert docker <= written
    assert "fleet_docker_reads" in (ROOT / "ansible/roles/keep/tasks/main.yml").read_text()
    assert written - docker <= kept()


def test_docker_is_told_to_wait_until_others_have_taken_over() -> None:
    """What it makes of that: `test_docker_waits.py`."""
    restarts = {
        path.stem
        for path in (ROOT / "ansible/roles/docker/tasks").glob("*.yml")
        for task in yaml.safe_load(path.read_text())
        if task.get("roost_docker_settings", {}).get("state") == "applied" or "roost_service" in task
        if path.stem != "uninstall"
    }
    assert restarts == {"anew"}
    for play in yaml.safe_load((ROOT / "playbook.yaml").read_text()):
        steps = [
            (role["name"], role.get("tasks_from", "main"), task.get("vars", {}))
            for block in play.get("tasks") or []
            for task in block.get("block", [])
            if (role := task.get("ansible.builtin.import_role"))
        ]
        drained = False
        for name, entry, told in steps:
            drained = drained or name == "drain"
            if name == "docker":
                assert told.get("docker_prepares") is (None if drained else True), play["name"]
                assert (entry == "anew") is drained, play["name"]
        if drained:
            assert ("docker", "anew", {}) in steps, play["name"]
