"""Layers of variables: what wins, and that it is what wins in Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from roost.ops.errors import RoostError
from roost.ops.variable_origins import Layer, effective, expand, layers_of

ROOT = Path(__file__).parents[3]
DEFAULTS = ROOT / "group_vars/all.yaml"
INVENTORY = {
    "all": {"vars": {"usage_currency": "from all", "monitoring_port": 1}},
    "fleet": {
        "vars": {"monitoring": True, "nomad_region": "of the group", "usage_watts": 1, "api_port": 1},
        "hosts": {"one": {"api_port": 2, "nomad_datacenter": "of the machine"}, "two[01:03]": {"usage_watts": 5}},
        "children": {"fleet_servers": {"hosts": {"one": None}, "vars": {"usage_watts": 2}}},
    },
}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump(INVENTORY))
    for name, values in {
        "group_vars/fleet.yml": {"nomad_region": "beside, of the group", "api_listen_port": 7},
        "host_vars/one.yaml": {"nomad_datacenter": "beside, of the machine"},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(values))
    return path


def found(inventory: Path, host: str, kept: Path) -> dict[str, Any]:
    return effective(layers_of(DEFAULTS, inventory, host, kept))


@pytest.mark.parametrize("host", ["one", "two02"])
def test_it_is_what_ansible_says(inventory: Path, host: str) -> None:
    words = ["ansible-inventory", "-i", str(inventory), "--playbook-dir", str(ROOT), "--host", host]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(ROOT / "app")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / words[0]), *words[1:]], env=environment, capture_output=True, check=True
    )
    theirs: dict[str, Any] = json.loads(done.stdout)
    ours = found(inventory, host, inventory.parent / "none")
    compared = set(yaml.safe_load(DEFAULTS.read_text())) & set(ours) & set(theirs)
    assert len(compared) > 100
    differ = {n: (ours[n].value, theirs[n]) for n in compared if ours[n].value != theirs[n]}
    assert differ == {}


def test_what_a_value_hides_is_told_nearest_first(inventory: Path, tmp_path: Path) -> None:
    kept = tmp_path / "host.yaml"
    kept.write_text("api_port: 3\n")
    port = found(inventory, "one", kept)["api_port"]
    assert (port.value, port.origin) == (3, str(kept))
    assert [value for _, value in port.hidden] == [2, 1, 8360]
    assert "machine one" in port.hidden[0][0]
    assert "group fleet" in port.hidden[1][0]


def test_a_machine_alone_has_no_inventory(tmp_path: Path) -> None:
    kept = tmp_path / "host.yaml"
    kept.write_text("monitoring: true\n")
    assert effective(layers_of(DEFAULTS, None, "", kept))["monitoring"].origin == str(kept)


def test_an_unknown_machine_is_refused(inventory: Path, tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="three is not in"):
        layers_of(DEFAULTS, inventory, "three", tmp_path / "none")


def test_a_file_that_is_no_yaml_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "host.yaml"
    broken.write_text("a: [\n")
    with pytest.raises(RoostError, match=r"host\.yaml is not valid YAML"):
        layers_of(DEFAULTS, None, "", broken)


def test_patterns_are_expanded() -> None:
    assert expand("worker[09:11].lan") == ["worker09.lan", "worker10.lan", "worker11.lan"]
    assert expand("a[1:2]b[1:2]") == ["a1b1", "a1b2", "a2b1", "a2b2"]
    assert expand("one") == ["one"]


def test_the_last_layer_wins() -> None:
    layers = [Layer("a", {"x": 1, "y": 1}), Layer("b", {"x": 2})]
    assert effective(layers)["x"].hidden == (("a", 1),)
    assert effective(layers)["y"].origin == "a"
