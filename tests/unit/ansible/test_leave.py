"""leave.yaml, played by Ansible: in which order a machine leaves, and what it is like where it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.unit.ansible.rendering import ROOT

NOMADS = ("roost-nomad-watch", "roost-nomad")
LEAVING = ("two", "three", "four")  # the keeper runs on the first one, the second one does not answer
NOMAD = """
import os
from ansible.module_utils.basic import AnsibleModule

options = {
    "names": {"type": "list", "elements": "str"}, "address": {}, "tls_dir": {}, "token": {"no_log": True},
    "reason": {"default": ""}, "state": {}, "not_started": {"type": "list", "elements": "str", "default": []},
}
module = AnsibleModule(options)
params = module.params
with open(os.environ["SAID"], "a") as said:
    said.write(params["state"] + " " + ",".join(params["names"]) + "\\n")
if params["state"] == os.environ["FAILS"].split(" ")[0]:
    module.fail_json(msg="No leader. Fix: Wait.")
if params["state"] == "returned":
    module.fail_json(msg=params["reason"] + "".join(params["not_started"]), update=True)
module.exit_json(changed=True, done=["node-two"])
"""
SERVICE = """#!/bin/sh
echo "$*" >>"$SAID"
case " $FAILS " in *" $1 "* | *" $2 "*) echo "roost-listen: it hangs" >&2; exit 1 ;; esac
"""
BOOTSTRAP = """echo "bootstrap.sh $*" >>"$SAID"
case " $FAILS $0" in *" bootstrap "*/four/*) exit 1 ;; esac
"""


@dataclass(frozen=True)
class Left:
    """What was done in this order, and what the run said at its end."""

    done: list[str]
    summary: dict[str, Any]

    @property
    def failure(self) -> str:
        """Return the reason and the fix."""
        return "{reason} Fix: {fix}".format_map(self.summary["failure"]) if self.summary["failed"] else ""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def leave(folder: Path, fails: str = "") -> Left:
    """Have machines leave. `fails` names what does not work: states of the module, verbs of the service."""
    program(folder / "bin/service", SERVICE)
    (folder / "library").mkdir()
    (folder / "library/roost_leave.py").write_text(NOMAD)
    (folder / "nomad-operator-token").write_text("token")
    machines: dict[str, dict[str, str]] = {name: {"ansible_connection": "local"} for name in ("one", *LEAVING)}
    for name, variables in machines.items():
        variables |= {"roost_state_dir": str(folder / name / "state"), "roost_install_dir": str(folder / name / "opt")}
        program(folder / name / "opt/current/bootstrap.sh", BOOTSTRAP)
    for name in ("one", "two"):
        (folder / name / "state/services").mkdir(parents=True)
        (folder / name / "state/services/roost-listen.sha256").touch()
    silent = program(folder / "bin/silent", "#!/bin/sh\nexit 255\n")
    machines["three"] |= {"ansible_connection": "ssh", "ansible_ssh_executable": str(silent)}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"fleet": {"hosts": machines}}, sort_keys=False))
    given = {
        "fleet_leaving": ",".join(LEAVING), "fleet_secrets_dir": str(folder),
        "ansible_python_interpreter": sys.executable,
    }  # fmt: skip
    said = folder / "said"
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "roost_progress",
        "ANSIBLE_LIBRARY": str(folder / "library"), "PYTHONPATH": str(ROOT / "app"), "SAID": str(said), "FAILS": fails,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "ROOST_SUMMARY": str(folder / "summary"),
        "ANSIBLE_SSH_RETRIES": "0",
    }  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yaml", "-e", json.dumps(given),
         str(ROOT / "leave.yaml")],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    left = Left(said.read_text().splitlines(), json.loads((folder / "summary").read_text()))
    assert (done.returncode != 0) == left.summary["failed"], done.stdout + done.stderr
    return left


NAMES = ",".join(LEAVING)
ENDED = sorted([f"{name} stop" for name in NOMADS] * 2)
REMOVED = ["bootstrap.sh --uninstall --yes"] * 2


def test_keeper_and_nomad_end_after_the_work_went_away_and_before_anything_is_removed(tmp_path: Path) -> None:
    """Nomad right after it gave up its vote: the others would give that back while the rest is removed."""
    left = leave(tmp_path)
    before, ended, after = left.done[:3], left.done[3:7], left.done[7:]
    assert before == [f"drained {NAMES}", "roost-listen stop", f"left {NAMES}"]
    assert sorted(ended) == ENDED
    assert after == [*REMOVED, f"forgotten {NAMES}"]
    assert left.failure == ""  # though one of them does not answer


def test_a_nomad_that_does_not_end_is_left_to_their_own_removal(tmp_path: Path) -> None:
    left = leave(tmp_path, "roost-nomad")
    assert left.done[-3:] == [*REMOVED, f"forgotten {NAMES}"]
    assert left.failure == ""


def test_a_keeper_that_does_not_stop_is_said_and_all_stays_as_it_was(tmp_path: Path) -> None:
    left = leave(tmp_path, "stop")
    assert left.done == [f"drained {NAMES}", "roost-listen stop", "roost-listen start", "returned node-two"]
    assert "roost-listen on two does not stop" in left.failure
    assert "it hangs" in left.failure
    assert "journalctl -u roost-listen" in left.summary["failure"]["fix"]


def test_where_the_servers_do_not_let_go_of_it_the_keeper_runs_again(tmp_path: Path) -> None:
    left = leave(tmp_path, "left")
    assert left.done == [
        f"drained {NAMES}", "roost-listen stop", f"left {NAMES}", "roost-listen start", "returned node-two",
    ]  # fmt: skip
    assert left.failure == "No leader. Fix: Wait."


def test_a_keeper_that_does_not_start_again_is_said_too(tmp_path: Path) -> None:
    left = leave(tmp_path, "left start")
    assert left.failure == "No leader. Fix: Wait.roost-listen on two"


def test_where_the_work_cannot_be_moved_the_keeper_is_left_alone(tmp_path: Path) -> None:
    left = leave(tmp_path, "drained")
    assert "roost-listen stop" not in left.done
    assert not [line for line in left.done if line.startswith(("bootstrap.sh", "forgotten"))]
    assert left.failure == "No leader. Fix: Wait."


def test_a_machine_that_roost_could_not_be_removed_from_stays_known(tmp_path: Path) -> None:
    left = leave(tmp_path, "bootstrap")
    assert left.done[-3:] == [*REMOVED, "forgotten two,three"]
    assert left.failure
