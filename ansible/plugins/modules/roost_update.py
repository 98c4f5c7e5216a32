#!/usr/bin/python
"""Ansible module: what a machine has is kept before its update, and put back where the update fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.gate import Asker, pass_gate
from roost.fleet.membership import machine_names
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.nomad_setup import wait_for_leader, wait_for_node
from roost.fleet.rolling import record, restore_point
from roost.fleet.rolling.progress import publish
from roost.ops import docker_settings
from roost.ops.errors import RoostError, user_message
from roost.ops.ownership import Manifest
from roost.ops.pki import renewal_due
from roost.ops.service_names import DOCKER, NOMAD
from roost.ops.services import STAMPS, begin_anew, paused, run_again, service_files, take_away

T = TypeVar("T")

DOCUMENTATION = r"""
module: roost_update
short_description: Keep what a machine has before its update, and put it back
description:
  - C(kept) says whether the run would bring the machine anything new, and if so writes down what it has now - files,
    links, services and the definitions of its jobs.
  - C(restored) makes all of that what it was, waits until the models on the machine answer again, and says so. It
    fails where that does not succeed.
options:
  state:
    description: Which of both.
    type: str
    choices: [kept, restored]
    required: true
  folder:
    description: Folder of what is kept and remembered.
    type: path
    required: true
  node:
    description: Name of this machine in Nomad.
    type: str
    required: true
  first:
    description: Whether it is the machine from which the fleet is set up; the jobs of the whole fleet are its affair.
    type: bool
    default: false
  engine_key:
    description: Key of the model servers.
    type: str
    default: ""
  driver:
    description: The driver that must be healthy.
    type: str
    choices: [docker, raw_exec]
    default: docker
  manifest:
    description: Path of the ownership manifest, which names our services.
    type: path
    required: true
  files:
    description: Files and links that an update may change.
    type: list
    elements: path
    default: []
  services:
    description: By service, the files with which it has to begin anew.
    type: dict
    default: {}
  docker_reads:
    description: What dockerd reads at its start, where its settings are ours and it is a service of systemd.
    type: list
    elements: str
    default: []
  certificates:
    description: Certificates with which what runs begins anew where they are renewed, as they are near their end.
    type: list
    elements: path
    default: []
  settings:
    description: Hash of all that the machine is to be brought to (filter roost_settings_hash).
    type: str
    default: ""
  force:
    description: Whether something new comes although the settings are the same.
    type: bool
    default: false
  begin:
    description: Whether the machine is changed from now on.
    type: bool
    default: false
  reason:
    description: Why it is put back.
    type: str
    default: ""
  untouched:
    description: Machines that the update did not come to.
    type: list
    elements: str
    default: []
  fleet:
    description: The machines that the fleet is to have, by their names in Nomad.
    type: list
    elements: str
    default: []
  stay:
    description: Files that are not put back where machines joined since, which they let in; those may vote by now.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds that each wait may take.
    type: int
    default: 180
extends_documentation_fragment: [roost_nomad]
author: Roost developers
"""

EXAMPLES = r"""
- name: Keep what is there
  roost_update:
    state: kept
    folder: /var/lib/roost/update
    node: two
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    token: "{{ operator_token }}"
    manifest: /var/lib/roost/manifest
    files: [/etc/roost/nomad.d/nomad.hcl]
    settings: "{{ all_variables | roost_settings_hash }}"
"""

RETURN = r"""
pending:
  description: Whether the run brings the machine something new, as far as is known before it.
  type: bool
  returned: with state kept
settings:
  description: Hash of the settings.
  type: str
  returned: with state kept
made:
  description: Hash of what the machine got from the first one, as it is remembered.
  type: str
  returned: with state kept
back:
  description: What was something else and was put back.
  type: list
  returned: with state restored
"""


def client_of(params: dict[str, Any]) -> NomadClient:
    """Return the operator's client."""
    tls = Path(params["tls_dir"])
    return NomadClient(NomadAccess.below(params["address"], tls, params["token"]))


def now() -> str:
    """Return the time."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def unless_silent(ask: Callable[[], T]) -> T | None:
    """Return what Nomad says; None where it does not answer: the run is to mend that."""
    try:
        return ask()
    except (NomadUnreachableError, NomadRefusedError):
        return None


def jobs_now(params: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the definitions of the machine's jobs, if Nomad answers."""
    client = client_of(params)
    return unless_silent(lambda: restore_point.machine_jobs(client, params["node"], first=params["first"]))


def machines_now(client: NomadClient) -> list[str] | None:
    """Return the machines of the fleet, if Nomad answers."""
    return unless_silent(lambda: machine_names(client))


def kept(module: AnsibleModule) -> None:
    """Say whether there is something new, and keep what is there."""
    params = module.params
    folder = Path(params["folder"])
    settings = params["settings"]
    known = record.read(folder)
    ca = Path(params["tls_dir"]) / "ca.pem"
    renewed = any(renewal_due(Path(path), ca) for path in params["certificates"])
    pending = bool(params["force"]) or renewed or known.differs(settings)
    if not module.check_mode:
        # Broken off while it was changed: what it had before that is kept already.
        if not (known.state == "changing" and restore_point.exists(folder)):
            manifest = Path(params["manifest"])
            names = Manifest(manifest).owned("unit")
            files = [file for name in names for file in service_files(name, manifest.parent / STAMPS)]
            restore_point.keep(
                folder, [*map(Path, params["files"]), *files], jobs_now(params), machines_now(client_of(params))
            )
        if pending and params["begin"]:
            record.write(folder, replace(known, state="changing", at=now(), reason=""))
    module.exit_json(changed=False, pending=pending, settings=settings, made=known.made, last=known.state)


def restored(module: AnsibleModule) -> None:
    """Put back what was kept, wait until the machine does its work as before, and end the run with what happened."""
    params = module.params
    reason, _, fix = params["reason"].partition(" Fix: ")
    left = ", ".join(params["untouched"])
    after = f" Not begun: {left}." if left else ""
    fix = f"{fix.strip()} Then run it again: it goes on here." if fix else "Correct it, and run it again."
    try:
        back, joined = put_back(params)
    except (RoostError, OSError) as error:
        told = user_message(error).partition(" Fix: ")[0]
        msg = f"The update failed: {reason} And it could not be put back to what it was: {told}{after} Fix: {fix}"
        module.fail_json(msg=msg, update=True, back=[])
    count = f"{len(back)} thing{'s' if len(back) != 1 else ''}" if back else "nothing left to do"
    told = f"It was put back to what it had ({count}), and its models answer.{after}"
    if joined:
        told += f" {', '.join(params['stay'])} stays as it is: it lets in {', '.join(joined)}."
    module.fail_json(msg=f"The update failed: {reason} {told} Fix: {fix}", update=True, back=back)


def put_back(params: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Put back what was kept, and wait until the models answer; return what was something else, and who joined since.

    Raises:
        RoostError: nothing was kept, or it did not succeed.
    """
    folder, node = Path(params["folder"]), params["node"]
    if not restore_point.exists(folder):
        raise RoostError("Nothing of before is kept here.")
    client = client_of(params)
    had = restore_point.machines(folder)
    joined = restore_point.joined(had, machines_now(client), params["fleet"])
    back = restore_point.put_back_files(folder, params["stay"] if joined else ())
    owned = Path(params["manifest"])
    manifest, stamps = Manifest(owned), owned.parent / STAMPS
    manifest.own("unit", *(name for name in params["services"] if str(service_files(name, stamps)[0]) in back))
    reads = params["docker_reads"]
    if reads and docker_settings.apply(docker_settings.stamp_of(owned), reads, [NOMAD]):
        back.append(f"service {docker_settings.SERVICE}")
    for name, files in params["services"].items():
        unit, stamp = service_files(name, stamps)
        if not restore_point.had(folder, unit):
            # Of the update alone: what it needs is gone, and no release of before asks for it.
            if take_away(name, manifest, stamps):
                back.append(f"service {name}")
        elif set(back) & {*files, str(unit), str(stamp)}:
            with paused([NOMAD] if name == DOCKER else []):
                begin_anew(name)
            back.append(f"service {name}")
    if run_again(NOMAD):  # of a run that was ended while it stood still
        back.append(f"service {NOMAD}")
    wait_for_leader(client, params["timeout"])
    wait_for_node(client, params["timeout"], params["driver"], node)
    back += restore_point.put_back_jobs(
        client, folder, node, first=params["first"], timeout_s=params["timeout"], alone=bool(joined) and had == [node]
    )
    pass_gate(client, node, Asker(params["engine_key"], Path(params["tls_dir"]) / "ca.pem"), params["timeout"])
    known = record.read(folder)
    after = replace(known, state="restored", at=now(), reason=params["reason"])
    record.write(folder, after)
    publish(client, node, after)
    restore_point.forget(folder)
    return back, joined


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "restored"], "required": True},
            "folder": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "first": {"type": "bool", "default": False},
            **NOMAD_OPTIONS,
            "engine_key": {"type": "str", "default": "", "no_log": True},
            "driver": {"type": "str", "choices": ["docker", "raw_exec"], "default": "docker"},
            "manifest": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "services": {"type": "dict", "default": {}},
            "docker_reads": {"type": "list", "elements": "str", "default": []},
            "certificates": {"type": "list", "elements": "path", "default": []},
            "settings": {"type": "str", "default": ""},
            "force": {"type": "bool", "default": False},
            "begin": {"type": "bool", "default": False},
            "reason": {"type": "str", "default": ""},
            "untouched": {"type": "list", "elements": "str", "default": []},
            "fleet": {"type": "list", "elements": "str", "default": []},
            "stay": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    try:
        (kept if module.params["state"] == "kept" else restored)(module)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))


if __name__ == "__main__":
    main()
