"""Names of variables are looked at before anything else, on all machines at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def play(folder: Path, hosts: dict[str, Any], group: dict[str, Any], book: Path) -> subprocess.CompletedProcess[str]:
    inventory = folder / "inventory.yaml"
    entries = {name: {**HERE, **values} for name, values in hosts.items()}
    inventory.write_text(yaml.safe_dump({"fleet": {"hosts": entries, "vars": group}}))
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(ROOT / "app"),
        "ANSIBLE_HOME": str(folder), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000",
    }  # fmt: skip
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, "-i", inventory, book], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_old_names_end_the_run_before_anything_is_done(tmp_path: Path) -> None:
    done = play(tmp_path, {"one": {"api_names": ["x"]}, "two": {}}, {"model_peers": []}, ROOT / "playbook.yaml")
    assert done.returncode != 0
    assert "api_names is now called api_names_custom" in done.stdout
    assert "(set for one)" in done.stdout
    assert "model_peers is now called model_peers_custom" in done.stdout
    assert "(set for one, two)" in done.stdout
    assert "TASK [program" not in done.stdout


def test_values_that_cannot_be_end_the_run_before_anything_is_done(tmp_path: Path) -> None:
    hosts = {"one": {"api_port": 99999, "nomad_http_port": "14646"}, "two": {"monitoring": "perhaps"}}
    done = play(tmp_path, hosts, {"roost_runtime": "podman", "engine_threads": "{{ 2 }}"}, ROOT / "playbook.yaml")
    assert done.returncode != 0
    for said in (
        "api_port is a whole number from 1 to 65535, not '99999'. (set for one)",
        "monitoring is true or false, not 'perhaps'. (set for two)",
        "roost_runtime is one of docker, local, not 'podman'. (set for one, two)",
    ):
        assert said in done.stdout
    assert "nomad_http_port" not in done.stdout
    assert "TASK [preflight" not in done.stdout


def test_good_names_and_slips_go_on(tmp_path: Path) -> None:
    book = ROOT / "zz-configuration-test.yaml"
    book.write_text(
        yaml.safe_dump([{"name": "Look", "hosts": "fleet", "gather_facts": False, "roles": ["configuration"]}])
    )
    try:
        done = play(tmp_path, {"one": {"api_prot": 1, "rack": "b"}}, {"monitoring": True}, book)
    finally:
        book.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Did you mean api_port?" in done.stdout + done.stderr
    assert "rack" not in done.stdout + done.stderr
