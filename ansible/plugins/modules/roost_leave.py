#!/usr/bin/python
"""Ansible module: machines give up their work, and are forgotten by the others."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.membership import drain, forget, leave_servers
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_leave
short_description: Take machines out of Nomad
description:
  - C(drained) moves what they run, takes them out of the servers that decide, and ends their tokens for snapshots;
    C(forgotten) removes what is left of them once they are gone.
options:
  state:
    description: Which of both.
    type: str
    choices: [drained, forgotten]
    required: true
  names:
    description: The machines, by their names in Nomad or by their addresses in the fleet.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds until what runs there must have ended.
    type: int
    default: 30
extends_documentation_fragment: [roost_nomad]
author: Roost developers
"""

EXAMPLES = r"""
- name: Move their work
  roost_leave:
    state: drained
    names: [three]
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    token: "{{ operator_token }}"
"""

RETURN = r"""
done:
  description: What was moved or removed.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "forgotten"], "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            **NOMAD_OPTIONS,
            "timeout": {"type": "int", "default": 30},
        },
    )
    params = module.params
    tls = Path(params["tls_dir"])
    access = NomadAccess.below(params["address"], tls, params["token"])
    client = NomadClient(access)
    try:
        if params["state"] == "drained":
            try:
                done = drain(client, params["names"], params["timeout"])
            except RoostError as error:  # a machine that does not answer cannot end anything, and leaves all the same
                module.warn(error.message)
                done = []
            done += leave_servers(client, params["names"])
        else:
            done = forget(client, params["names"])
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(done), done=done)


if __name__ == "__main__":
    main()
