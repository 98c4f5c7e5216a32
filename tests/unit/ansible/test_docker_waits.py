"""Where dockerd has to wait for the machine's turn before it reads its settings, and whose settings they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.ansible.rendering import SYSTEMD, evaluate

NO, YES = {"changed": False}, {"changed": True}
SKIPPED = {"changed": False, "skipped": True}


def machine(**facts: Any) -> dict[str, Any]:  # noqa: ANN401 (Ansible's facts)
    """A machine at work whose Docker is ours, in a run that changed nothing."""
    hardware = {**SYSTEMD, "docker": {"ours": True, "running": True} | facts.pop("docker", {})}
    quiet = dict.fromkeys(("docker_daemon_settings", "docker_unit_settings", "docker_unit_gone", "docker_due"), NO)
    return {
        "ansible_connection": "local",
        "hardware_host": hardware,
        "docker_prepares": True,
        "docker_script_due": SKIPPED,
        **quiet,
    } | facts


def test_limits_wait_for_the_turn_and_proxies_do_not(tmp_path: Path) -> None:
    machines = {
        "quiet": machine(),
        "limits": machine(docker_daemon_settings=YES, docker_due=YES),
        "its-turn": machine(docker_daemon_settings=YES, docker_due=YES, docker_prepares=False),
        "proxies": machine(docker_unit_settings=YES, docker_due=YES),
        "no-proxies": machine(docker_unit_gone=YES, docker_due=YES),
        "broken-off": machine(docker_due=YES),
        "script": machine(docker_due=SKIPPED, docker_script_due=YES),
        "down": machine(docker={"running": False}),
        "foreign": machine(docker={"ours": False}),
    }
    found = evaluate(tmp_path, ["docker"], "docker_waits", machines)
    assert {name for name, waits in found.items() if waits} == {"quiet", "limits"}


def test_nobody_can_take_over_from_a_machine_alone(tmp_path: Path) -> None:
    alone = {"limits": machine(docker_daemon_settings=YES, docker_due=YES)}
    assert evaluate(tmp_path, ["docker"], "docker_waits", alone) == {"limits": False}


def test_of_a_foreign_docker_nothing_is_kept(tmp_path: Path) -> None:
    machines = {
        "ours": machine(),
        "new": machine(docker={"ours": False, "running": False}),
        "foreign": machine(docker={"ours": False}),
        "local": machine(roost_runtime="local"),
    }
    found = evaluate(tmp_path, ["docker"], "fleet_docker_reads", machines)
    files = ["/etc/docker/daemon.json", "/etc/systemd/system/docker.service.d/roost.conf"]
    assert found == {"ours": files, "new": files, "foreign": [], "local": []}
