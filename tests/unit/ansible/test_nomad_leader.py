"""Whom a server of Nomad hands its lead to before it begins anew: so the leader is the last that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.ansible.rendering import ROOT

FLEET = ["one", "two", "three", "four", "five"]


def next_leaders(folder: Path, servers: list[str], order: list[str]) -> dict[str, str]:
    """Return for each machine the name, in Nomad, of the one that shall lead while its server begins anew."""
    hosts = {name: {"ansible_connection": "local", "hardware_host": {"hostname": f"node-{name}"}} for name in FLEET}
    groups = {"fleet": hosts, "fleet_servers": dict.fromkeys(servers), "fleet_order": dict.fromkeys(order)}
    inventory = {"all": {"children": {name: {"hosts": members} for name, members in groups.items()}}}
    (folder / "hosts.yaml").write_text(yaml.safe_dump(inventory, sort_keys=False))
    play = {
        "hosts": "fleet",
        "gather_facts": False,
        "vars": {"fleet_servers": servers},
        "vars_files": [str(ROOT / "ansible/roles/nomad/vars/main.yml")],
        "tasks": [
            {
                "name": "Tell",
                "ansible.builtin.copy": {
                    "content": "{{ nomad_next_leader | to_json }}",
                    "dest": str(folder / "{{ inventory_hostname }}.out"),
                    "mode": "0644",
                },
            }
        ],
    }
    (folder / "play.yaml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yaml", "play.yaml",
         "-e", f"ansible_python_interpreter={sys.executable}"],
        cwd=folder, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(ROOT / "app")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: str(json.loads((folder / f"{name}.out").read_text())) for name in FLEET}


@pytest.mark.parametrize(
    ("servers", "order", "last", "after_it"),
    [
        (["one", "two", "three"], ["two", "four", "three", "five"], "three", "node-one"),
        (["one", "two", "three"], ["three", "five", "four", "two"], "two", "node-one"),
        (["two", "three", "four"], ["four", "two", "three", "five"], "three", "node-four"),
    ],
    ids=["the first is a server", "another order", "the first is none"],
)
def test_the_last_of_the_order_leads_until_its_own_turn(
    tmp_path: Path, servers: list[str], order: list[str], last: str, after_it: str
) -> None:
    told = next_leaders(tmp_path, servers, order)
    assert {told[name] for name in servers if name != last} == {f"node-{last}"}
    assert told[last] == after_it, "one that is done"
