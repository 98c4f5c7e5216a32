#!/usr/bin/python
"""Ansible module: wait until Docker's daemon answers."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from roost.ops.docker_daemon import wait_for_docker
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_docker_ready
short_description: Wait until Docker's daemon answers
description:
  - Asks the daemon until it answers. If it does not, fails with the reason that its log gives.
options:
  log:
    description: Command that shows the daemon's log.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait.
    type: int
    required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Wait for Docker
  roost_docker_ready:
    log: [journalctl, --unit, docker, --no-pager]
    timeout: 30
"""

RETURN = r"""
version:
  description: The daemon's version.
  type: str
  returned: success
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "log": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, version="")
    try:
        module.exit_json(changed=False, version=wait_for_docker(module.params["log"], module.params["timeout"]))
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))


if __name__ == "__main__":
    main()
