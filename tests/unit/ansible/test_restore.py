"""The role restore, played by Ansible: why a machine goes back that was changed at the same time as one that failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.unit.ansible.rendering import ROOT, SYSTEMD

NOTES_THE_REASON = """
import json, os
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule

texts = ("state", "folder", "node", "address", "tls_dir", "token", "engine_key", "driver", "manifest", "reason")
options = {name: {"type": "str", "no_log": False} for name in texts}
options |= {name: {"type": "list"} for name in ("untouched", "docker_reads", "fleet", "stay")}
options |= {"first": {"type": "bool"}, "services": {"type": "dict"}}
module = AnsibleModule({**options, "timeout": {"type": "int"}})
params = module.params
said = json.dumps([params["reason"], ",".join(params["untouched"]), params["fleet"]])
(Path(os.environ["SAID"]) / params["node"]).write_text(said)
reason = params["reason"].partition(" Fix: ")[0]
module.fail_json(msg=f"The update failed: {reason} Back. Fix: Again.", update=True)
"""
FLEET = ["one", "two", "three", "four"]  # of five too, which the run did not look at
BROKE = "The job j did not become healthy. Fix: Read its log."
BREAKS = {"ansible.builtin.fail": {"msg": BROKE}, "when": "inventory_hostname == 'two'"}
SILENT = {"ansible.builtin.command": "true"}


def went_back(folder: Path, fails: Mapping[str, object], **of_two: str) -> dict[str, list[Any]]:
    """Return why each machine of a batch went back, who was not begun, and whom the fleet is to have."""
    (folder / "library").mkdir()
    (folder / "library/roost_update.py").write_text(NOTES_THE_REASON)
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    said = folder / "said"
    said.mkdir()
    for name in ("nomad-operator-token", "engine-key"):
        (folder / name).write_text("secret")
    machines = {
        name: {
            "ansible_connection": "local", "hardware_host": {**SYSTEMD, "hostname": name},
            "hardware_node_address": f"192.0.2.{number}",
        }
        for number, name in enumerate(("one", "two", "three", "four"), 11)
    }  # fmt: skip
    machines["two"] |= of_two
    groups: dict[str, Any] = {
        "fleet": {"hosts": {**machines, "five": {}}},
        "fleet_order": {"hosts": dict.fromkeys(("two", "three", "four"))},
        "fleet_batch_0001": {"hosts": dict.fromkeys(("two", "three"))},
        "fleet_batch_0002": {"hosts": dict.fromkeys(("four",))},
    }
    (folder / "hosts.yaml").write_text(yaml.safe_dump(groups, sort_keys=False))
    back = {"ansible.builtin.import_role": {"name": "restore"}}
    turn = {"hosts": "fleet_order", "gather_facts": False, "serial": [2, 1],
            "tasks": [{"block": [dict(fails)], "rescue": [back]}]}  # fmt: skip
    (folder / "play.yaml").write_text(yaml.safe_dump([turn], sort_keys=False))
    given = {
        "program_site": {"stat": {"exists": True}}, "fleet_secrets_dir": str(folder),
        "ansible_python_interpreter": sys.executable,
    }  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yaml", "-e", json.dumps(given), "play.yaml"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LIBRARY": str(folder / "library"),
            "PYTHONPATH": str(ROOT / "app"), "SAID": str(said), "ANSIBLE_SSH_RETRIES": "0",
            "ANSIBLE_STDOUT_CALLBACK": "roost_progress", "ROOST_SUMMARY": str(folder / "summary"), "ROOST_FLEET": "1",
        },
    )  # fmt: skip
    found = {path.name: json.loads(path.read_text()) for path in said.iterdir()}
    assert found, done.stdout + done.stderr
    return found


def test_who_goes_back_for_anothers_failure_says_whose_and_why(tmp_path: Path) -> None:
    assert went_back(tmp_path, BREAKS) == {
        "two": [BROKE, "four", FLEET],
        "three": [f"two was changed at the same time, and failed: {BROKE}", "four", FLEET],
    }
    failure = json.loads((tmp_path / "summary").read_text())["failure"]
    broke = BROKE.partition(" Fix: ")[0]
    assert sorted(failure["reason"].splitlines()) == [
        f"three: The update failed: two was changed at the same time, and failed: {broke} Back.",
        f"two: The update failed: {broke} Back.",
    ]
    assert failure["fix"] == "Again."


def test_one_that_no_longer_answers_is_named(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 255\n")
    silent.chmod(0o755)
    found = went_back(tmp_path, SILENT, ansible_connection="ssh", ansible_ssh_executable=str(silent))
    assert found == {"three": ["One that was changed at the same time does not answer (two).", "four", FLEET]}
