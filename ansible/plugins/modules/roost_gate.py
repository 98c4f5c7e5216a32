#!/usr/bin/python
"""Ansible module: an update of this machine begins by giving up work, and ends when it does its work again."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.gate import Asker, pass_gate
from roost.fleet.membership import drain
from roost.fleet.nomad_api import NomadAccess, NomadClient
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_gate
short_description: Drain a machine before its update, and let nobody pass before it answers after it
description:
  - C(drained) moves what the machine runs elsewhere, as far as it may run there.
  - C(passed) lets it have work again and waits until its node is ready, what belongs on it runs, and each model on it
    has made a token.
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
  address:
    description: Address of Nomad's HTTP API, https://HOST:PORT.
    type: str
    required: true
  tls_dir:
    description: Folder with ca.pem, cli.pem and cli-key.pem.
    type: path
    required: true
  token:
    description: The operator's token.
    type: str
    required: true
  engine_key:
    description: Key of the model servers.
    type: str
    default: ""
  timeout:
    description: Seconds that it may take.
    type: int
    default: 180
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
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "passed"], "required": True},
            "node": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "tls_dir": {"type": "path", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "engine_key": {"type": "str", "default": "", "no_log": True},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, done=False)
    tls = Path(params["tls_dir"])
    access = NomadAccess(params["address"], tls / "ca.pem", tls / "cli.pem", tls / "cli-key.pem", params["token"])
    client = NomadClient(access)
    try:
        if params["state"] == "drained":
            done = bool(drain(client, [params["node"]], params["timeout"]))
        else:
            ask = Asker(params["engine_key"], tls / "ca.pem")
            done = pass_gate(client, params["node"], ask, params["timeout"])
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=False, done=done)


if __name__ == "__main__":
    main()
