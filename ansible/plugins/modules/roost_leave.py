#!/usr/bin/python
"""Ansible module: machines give up their work, and are forgotten by the others."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.membership import await_drained, begin_drain, forget, leave_servers, resume
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_leave
short_description: Take machines out of Nomad
description:
  - C(drained) moves what they run; C(left) takes them out of the servers that decide, and ends their tokens for
    snapshots; C(forgotten) removes what is left of them once they are gone.
  - C(returned) lets them have work again where they do not leave after all, and ends the run with the reason.
options:
  state:
    description: Which of these.
    type: str
    choices: [drained, left, returned, forgotten]
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
  reason:
    description: With C(returned), why they do not leave, with the fix.
    type: str
    default: ""
  not_started:
    description: With C(returned), what was stopped and does not start again.
    type: list
    elements: str
    default: []
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
  description: What was removed; of C(drained) the names of those that had work so far.
  type: list
  returned: always
"""


def drained(module: AnsibleModule, client: NomadClient) -> None:
    """Have them give up their work, as far as they answer."""
    names, timeout = module.params["names"], module.params["timeout"]
    done = begin_drain(client, names, timeout)
    try:
        await_drained(client, names, timeout)
    except RoostError as error:  # a machine that does not answer cannot end anything, and leaves all the same
        module.warn(error.message)
    module.exit_json(changed=bool(done), done=done)


def returned(module: AnsibleModule, client: NomadClient) -> None:
    """Let them have work again, and end the run with why they stay."""
    reason, _, fix = module.params["reason"].partition(" Fix: ")
    told = "The machine stays in the fleet as it was."
    try:
        resume(client, module.params["names"])
    except RoostError as error:
        told = f"And it could not be given work again: {error.message} Any run of ./bootstrap.sh gives it."
    down = ", ".join(module.params["not_started"])
    told += f" But {down} does not start again." if down else ""
    module.fail_json(msg=f"{reason} {told} Fix: {fix or 'Correct it, and run it again.'}", update=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "left", "returned", "forgotten"], "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            **NOMAD_OPTIONS,
            "timeout": {"type": "int", "default": 30},
            "reason": {"type": "str", "default": ""},
            "not_started": {"type": "list", "elements": "str", "default": []},
        },
    )
    params = module.params
    client = NomadClient(NomadAccess.below(params["address"], Path(params["tls_dir"]), params["token"]))
    try:
        if params["state"] == "drained":
            drained(module, client)
        elif params["state"] == "returned":
            returned(module, client)
        done = (leave_servers if params["state"] == "left" else forget)(client, params["names"])
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(done), done=done)


if __name__ == "__main__":
    main()
