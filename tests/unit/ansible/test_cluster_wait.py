"""Whether a server that began anew is waited for, by the role's own variables: others begin only when it keeps up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from roost.fleet.node_identity import ACL, BEGUN
from tests.unit.ansible.rendering import ROOT, evaluate

Json = Any
CASES: dict[str, tuple[dict[str, Json], bool]] = {
    "nothing": ({"cluster_made": {"made": []}}, False),
    "skipped": ({"cluster_made": {}}, False),
    "by the configuration": ({"nomad_begun": {"changed": True}, "cluster_made": {"made": []}}, True),
    "by what refused it": ({"nomad_begun": {"changed": False}, "cluster_made": {"made": [BEGUN]}}, True),
    "no server": ({"cluster_made": {"made": [BEGUN]}, "fleet_servers": ["other"]}, False),
    "new": ({"cluster_made": {"made": [BEGUN]}, "program_site": {"stat": {"exists": False}}}, False),
}


def test_a_server_is_waited_for_whatever_had_it_begin_anew(tmp_path: Path) -> None:
    common = {"fleet_servers": ["localhost"], "program_site": {"stat": {"exists": True}}}
    tasks = [
        {
            "ansible.builtin.copy": {"content": "{{ cluster_began_anew | to_json }}", "dest": str(tmp_path / name)},
            "vars": {**common, **variables},
        }
        for name, (variables, _) in CASES.items()
    ]
    play = {
        "hosts": "localhost", "gather_facts": False, "tasks": tasks,
        "vars_files": [str(ROOT / "ansible/roles/cluster/vars/main.yml")],
    }  # fmt: skip
    (tmp_path / "play.yaml").write_text(yaml.safe_dump([play], sort_keys=False))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", "play.yaml",
         "-e", f"ansible_python_interpreter={sys.executable}"],
        cwd=tmp_path, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(ROOT / "app")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: json.loads((tmp_path / name).read_text()) for name in CASES}
    assert found == {name: awaited for name, (_, awaited) in CASES.items()}


def test_access_control_that_was_set_up_anew_is_known_whoever_saw_it(tmp_path: Path) -> None:
    """Machines at work ask for another identity then."""
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "hardware_node_address": "x"}
    machines: dict[str, dict[str, Json]] = {
        "one": {"drain_done": {"skipped": True}},
        "two": {"nomad_set_up": [ACL]},
        "three": {"nomad_left": {"set_up": ["left"]}},
        "four": {"drain_done": {"set_up": ["drained"]}, "cluster_made": {"made": ["policy"]}},
    }
    found = evaluate(tmp_path, ["cluster"], "cluster_set_up", {n: {**common, **v} for n, v in machines.items()})
    assert found["one"] == ["drained", ACL, "left", "policy"]
