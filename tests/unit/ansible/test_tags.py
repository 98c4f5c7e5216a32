"""Parts of the playbook run alone, or left out: which tasks remain, as Ansible lists them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.unit.ansible.rendering import HOSTS, ROOT, SYSTEMD, evaluate

KEEPER = "jobs : Jobs | Keep their listening sockets while they are replaced"


def plays(folder: Path, *options: str) -> list[list[str]]:
    """Return the tasks of each play, `ROLE : NAME` for those of roles, but for the checks of arguments."""
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"fleet": {"hosts": {"one": {}}}}))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yaml", str(ROOT / "playbook.yaml"),
         "--list-tasks", *options],
        cwd=folder, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[list[str]] = []
    for line in done.stdout.splitlines():
        name = line.partition("\tTAGS:")[0].strip()
        if name.startswith("play #"):
            found.append([])
        elif "\tTAGS:" in line and "Validating arguments" not in name:
            found[-1].append(name)
    return found


def makers_of(variable: str, folder: Path) -> set[str]:
    """Return the tasks, `ROLE : NAME`, that make the folder which a variable names."""
    found: set[str] = set()
    one = {"ansible_connection": "local", "hardware_node_address": HOSTS["one"], "hardware_host": SYSTEMD}
    for file in sorted((ROOT / "ansible/roles").glob("*/tasks/*.yml")):
        role = file.parts[-3]
        tasks: list[dict[str, Any]] = yaml.safe_load(file.read_text())
        for task in tasks:
            if folders := task.get("roost_layout", {}).get("folders"):
                where = folder / f"{role}-{len(list(folder.iterdir()))}"
                where.mkdir()
                if evaluate(where, [role], f"({variable} in {_paths(folders)})", {"one": one})["one"]:
                    found.add(f"{role} : {task['name']}")
    return found


def _paths(folders: str | list[dict[str, str]]) -> str:
    """Return the Jinja expression of folders' paths, of a list in a task or of one that is computed."""
    if isinstance(folders, str):
        return f"({_bare(folders)}) | map(attribute='path')"
    return f"[{', '.join(_bare(one['path']) for one in folders)}]"


def _bare(template: str) -> str:
    return re.sub(r"^{{|}}$", "", template)


def test_the_keepers_folder_is_made_before_it_wherever_it_is_brought(tmp_path: Path) -> None:
    """A release that brings the keeper has all for it when somebody runs the jobs alone."""
    makers = makers_of("roost_listen_dir", tmp_path)
    assert len(makers) == 1, "one role says whose it is"
    brought = [tasks for tasks in plays(tmp_path, "--tags", "jobs") if KEEPER in tasks]
    assert brought
    for tasks in brought:
        assert makers & set(tasks[: tasks.index(KEEPER)])
    assert not makers & {task for tasks in plays(tmp_path, "--skip-tags", "jobs") for task in tasks}


def test_users_folders_and_what_is_written_down_are_left_out_with_nothing_but_themselves(tmp_path: Path) -> None:
    everything = plays(tmp_path)
    tags = {tag for play in yaml.safe_load((ROOT / "playbook.yaml").read_text()) for tag in _tags(play)}
    left = plays(tmp_path, "--skip-tags", ",".join(sorted(tags - {"always", "layout"})))

    def layout(of: list[list[str]]) -> list[str]:
        return [task for tasks in of for task in tasks if task.startswith("layout : ")]

    assert {"jobs", "images", "nomad"} <= tags
    assert layout(everything)
    assert layout(left) == layout(everything)


def _tags(part: Any) -> set[str]:  # noqa: ANN401 (YAML)
    if isinstance(part, list):
        return {tag for entry in part for tag in _tags(entry)}
    if isinstance(part, dict):
        return {*part.get("tags", []), *(tag for entry in part.values() for tag in _tags(entry))}
    return set()
