#!/usr/bin/python
"""Ansible module: what comes before a server of Nomad is begun anew, and what after."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient
from roost.fleet.rolling.servers import get_ready, wait_healthy
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_nomad_server
short_description: Begin a server of Nomad anew without losing the fleet's state
description:
  - C(ready) refuses where the other servers would be no majority, keeps a snapshot of Nomad's state, and has another
    server lead. Before the first of several servers is begun anew, the last of them is made the leader, so that the
    leader comes last.
  - C(healthy) waits until the server votes again and keeps up with the leader.
  - Where Nomad does not answer there is nothing to lose, and nothing is done.
options:
  state:
    description: Which of both.
    type: str
    choices: [ready, healthy]
    required: true
  rpc_address:
    description: This server's address for RPC, HOST:PORT.
    type: str
    required: true
  leader:
    description: The machine that should lead meanwhile.
    type: str
    default: ""
  folder:
    description: Where snapshots are kept.
    type: path
    default: ""
  label:
    description: What is to be changed, for the snapshot's name.
    type: str
    default: before
  timeout:
    description: Seconds that each wait may take.
    type: int
    default: 60
extends_documentation_fragment: [roost_nomad]
author: Roost developers
"""

EXAMPLES = r"""
- name: Get ready to begin the server anew
  roost_nomad_server:
    state: ready
    rpc_address: 192.0.2.12:4647
    leader: three
    folder: /var/lib/roost/snapshots
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    token: "{{ operator_token }}"
"""

RETURN = r"""
snapshot:
  description: The file with Nomad's state as it was; empty if none was taken.
  type: str
  returned: with state ready
handed_over:
  description: Whether another server leads now.
  type: bool
  returned: with state ready
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["ready", "healthy"], "required": True},
            "rpc_address": {"type": "str", "required": True},
            "leader": {"type": "str", "default": ""},
            "folder": {"type": "path", "default": ""},
            "label": {"type": "str", "default": "before"},
            **NOMAD_OPTIONS,
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[("state", "ready", ("folder",))],
        supports_check_mode=True,
    )
    params = module.params
    mine = params["rpc_address"]
    if module.check_mode:
        module.exit_json(changed=False, snapshot="", handed_over=False)
    tls = Path(params["tls_dir"])
    access = NomadAccess.below(params["address"], tls, params["token"])
    client = NomadClient(access)
    try:
        if params["state"] == "healthy":
            wait_healthy(client, mine, params["timeout"])
            module.exit_json(changed=False)
        kept, moved = get_ready(
            client,
            mine,
            folder=Path(params["folder"]),
            label=params["label"],
            leader=params["leader"],
            timeout_s=params["timeout"],
        )
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=False, snapshot=kept, handed_over=moved)


if __name__ == "__main__":
    main()
