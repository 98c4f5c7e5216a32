#!/usr/bin/python
"""Ansible module: what comes before a server of Nomad is begun anew, what after, and how a machine stops being one."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.node_identity import ACL
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.nomad_setup import ensure_acl
from roost.fleet.rolling.server_data import ASIDE, SERVER_PART, discard, put_aside
from roost.fleet.rolling.servers import forget_server, get_ready, servers, step_down, wait_healthy
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_nomad_server
short_description: Begin a server of Nomad anew without losing the fleet's state
description:
  - C(ready) refuses where the other servers would be no majority, keeps a snapshot of Nomad's state, and has another
    server lead. Before the first of several servers is begun anew, the last of them is made the leader, so that the
    leader comes last.
  - C(healthy) waits until the server votes again and keeps up with the leader.
  - C(left) has a server give up its vote before it begins anew as a client, once a majority of those that stay is
    healthy; C(forgotten) takes it from what the others know. Both are asked of one that stays.
  - C(aside) moves what a machine knew as a server out of the way, once it runs as a client; C(discarded) removes that
    once the others forgot it as a server.
  - C(listed) only says who is a server.
  - Where Nomad does not answer there is nothing to lose, and nothing is done before a server begins anew or leaves. One
    that lost its state, or never had any, has its access control set up; any other refusal ends the run.
options:
  state:
    description: Which of them.
    type: str
    choices: [ready, healthy, left, forgotten, aside, discarded, listed]
    required: true
  rpc_address:
    description: The server's address for RPC, HOST:PORT.
    type: str
    default: ""
  data_dir:
    description: Nomad's folder of data.
    type: path
    default: ""
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
  returned: with state ready and left
servers:
  description: The addresses of all servers, without their port.
  type: list
  returned: with state listed
handed_over:
  description: Whether another server leads now.
  type: bool
  returned: with state ready
set_up:
  description: What had to be set up once more, as M(roost_nomad_setup) says it, since Nomad had no state.
  type: list
  returned: with state ready and left
"""


def put_away(state: str, data_dir: Path, *, dry_run: bool) -> bool:
    """Move out of the way what a machine knew as a server, or remove what was moved; return whether there was any."""
    if dry_run:
        return (data_dir / (SERVER_PART if state == "aside" else ASIDE)).is_dir()
    return (put_aside if state == "aside" else discard)(data_dir)


def carry_out(module: AnsibleModule, client: NomadClient) -> dict[str, object]:
    """Do what the state says; return what the module says of it."""
    params = module.params
    state, mine, timeout_s = params["state"], params["rpc_address"], params["timeout"]
    if state == "listed":
        try:
            found = servers(client)
        except (NomadUnreachableError, NomadRefusedError):
            found = []
        return {"changed": False, "servers": [server.address.rpartition(":")[0].strip("[]") for server in found]}
    if state in ("aside", "discarded"):
        return {"changed": put_away(state, Path(params["data_dir"]), dry_run=module.check_mode)}
    if module.check_mode:
        return {"changed": False, "snapshot": "", "handed_over": False}
    if state == "healthy":
        wait_healthy(client, mine, timeout_s)
        return {"changed": False}
    if state == "forgotten":
        return {"changed": forget_server(client, mine)}
    how = {"folder": Path(params["folder"]), "label": params["label"], "leader": params["leader"]}
    made: list[str] = []
    anonymous = NomadClient(NomadAccess.below(params["address"], Path(params["tls_dir"]), ""))

    def set_up_anew() -> bool:
        if ensure_acl(client, anonymous, params["token"].strip()):
            made.append(ACL)
        return bool(made)

    if state == "left":
        kept, left = step_down(client, mine, **how, timeout_s=timeout_s, set_up_anew=set_up_anew)
        return {"changed": left or bool(made), "snapshot": kept, "set_up": made}
    kept, moved = get_ready(client, mine, **how, timeout_s=timeout_s, set_up_anew=set_up_anew)
    return {"changed": bool(made), "snapshot": kept, "handed_over": moved, "set_up": made}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["ready", "healthy", "left", "forgotten", "aside", "discarded", "listed"],
                "required": True,
            },
            "rpc_address": {"type": "str", "default": ""},
            "leader": {"type": "str", "default": ""},
            "folder": {"type": "path", "default": ""},
            "label": {"type": "str", "default": "before"},
            "data_dir": {"type": "path", "default": ""},
            **NOMAD_OPTIONS,
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[
            ("state", "ready", ("rpc_address", "folder")),
            ("state", "left", ("rpc_address", "folder")),
            ("state", "healthy", ("rpc_address",)),
            ("state", "forgotten", ("rpc_address",)),
            ("state", "aside", ("data_dir",)),
            ("state", "discarded", ("data_dir",)),
        ],
        supports_check_mode=True,
    )
    params = module.params
    client = NomadClient(NomadAccess.below(params["address"], Path(params["tls_dir"]), params["token"]))
    try:
        module.exit_json(**carry_out(module, client))
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))


if __name__ == "__main__":
    main()
