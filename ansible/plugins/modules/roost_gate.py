#!/usr/bin/python
"""Ansible module: an update of a machine begins by giving up work, and ends when its models answer again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.gate import Asker, pass_gate
from roost.fleet.node_identity import ACL
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient
from roost.fleet.nomad_setup import ensure_acl
from roost.fleet.rolling import record, restore_point
from roost.fleet.rolling.progress import publish
from roost.fleet.rolling.traffic import hand_over
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_gate
short_description: Drain a machine before its update, and let nobody pass before it answers after it
description:
  - C(drained) has all gateways give its model servers no new requests, as far as others serve the same models, and
    waits until they are idle. Gateways on the machine go on.
  - C(passed) waits until its node is ready, what belongs on it runs, and each model on it has made a token; only then
    its servers get requests of clients again. A machine that was to leave the fleet, in a run that was broken off, has
    work again; one that somebody took out by hand (drained, not eligible) stays out, and that is said.
options:
  state:
    description: Which of both.
    type: str
    choices: [drained, passed]
    required: true
  node:
    description: Name of this machine in Nomad.
    type: str
    required: true
  engine_key:
    description: Key of the model servers.
    type: str
    default: ""
  folder:
    description: Folder where it is remembered how far the machine's update came; empty to remember nothing.
    type: path
    default: ""
  settings:
    description: Hash of what the machine is brought to.
    type: str
    default: ""
  made:
    description: Hash of what it got from the first machine.
    type: str
    default: ""
  release:
    description: The release that is being applied.
    type: str
    default: ""
  nomad_version:
    description: Version that the machine's Nomad must have to pass; empty for any.
    type: str
    default: ""
  timeout:
    description: Seconds that it may take.
    type: int
    default: 180
extends_documentation_fragment: [roost_nomad]
author: Roost developers
"""

EXAMPLES = r"""
- name: Wait until the models on it answer
  roost_gate:
    state: passed
    node: two
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    token: "{{ operator_token }}"
    engine_key: "{{ engine_key }}"
"""

RETURN = r"""
done:
  description: Whether work was moved or given back.
  type: bool
  returned: always
taken:
  description: Model servers' jobs that others took over.
  type: list
  returned: with state drained
note:
  description: What the user should know of it.
  type: str
  returned: when there is something
set_up:
  description: What had to be set up, as M(roost_nomad_setup) says it, where Nomad had lost its state.
  type: list
  returned: when there is something
"""


def now() -> str:
    """Return the time."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def remember(params: dict[str, Any], client: NomadClient, what: record.UpdateRecord) -> None:
    """Keep on the machine, and show to all, how far its update came."""
    record.write(Path(params["folder"]), what)
    publish(client, params["node"], what)


def drained(params: dict[str, Any], client: NomadClient, ask: Asker) -> dict[str, Any]:
    """Have others take over."""
    if params["folder"]:
        known = record.read(Path(params["folder"]))
        remember(params, client, replace(known, state="changing", at=now(), reason=""))
    access = NomadAccess.below(params["address"], Path(params["tls_dir"]), "")

    def set_up_anew() -> bool:
        return ensure_acl(client, NomadClient(access), params["token"].strip())

    found = hand_over(client, params["node"], ask, params["timeout"], set_up_anew=set_up_anew)
    said: dict[str, Any] = {"done": bool(found.taken), "taken": list(found.taken)}
    if found.lost:
        said["note"] = "Nomad had lost its state: there was nothing to hand over, and it is set up anew"
        said["set_up"] = [ACL]
    elif found.alone:
        said["note"] = f"nobody else serves what {', '.join(found.alone)} serves: its clients wait meanwhile"
    elif found.running:
        said["note"] = f"{found.running} requests still run there; they are gone on with elsewhere"
    return said


def passed(params: dict[str, Any], client: NomadClient, ask: Asker) -> dict[str, Any]:
    """Let nobody pass before the models answer; then the machine is done."""
    found = pass_gate(client, params["node"], ask, params["timeout"], params["nomad_version"])
    if params["folder"] and params["settings"]:
        folder = Path(params["folder"])
        fresh = record.UpdateRecord("passed", params["settings"], params["made"], params["release"])
        if replace(record.read(folder), at="") != fresh:
            remember(params, client, replace(fresh, at=now()))
        restore_point.forget(folder)
    said: dict[str, Any] = {"done": found.given_back}
    if found.out:
        said["note"] = (
            f"somebody had taken {params['node']} out by hand: it still gets no work from Nomad, until "
            f"`nomad node eligibility -enable` for it"
        )
    return said


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "passed"], "required": True},
            "node": {"type": "str", "required": True},
            **NOMAD_OPTIONS,
            "engine_key": {"type": "str", "default": "", "no_log": True},
            "folder": {"type": "path", "default": ""},
            **{name: {"type": "str", "default": ""} for name in ("settings", "made", "release", "nomad_version")},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, done=False)
    tls = Path(params["tls_dir"])
    access = NomadAccess.below(params["address"], tls, params["token"])
    client = NomadClient(access)
    ask = Asker(params["engine_key"], tls / "ca.pem")
    try:
        said = (drained if params["state"] == "drained" else passed)(params, client, ask)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=False, **said)


if __name__ == "__main__":
    main()
