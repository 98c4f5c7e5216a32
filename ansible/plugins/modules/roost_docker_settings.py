#!/usr/bin/python
"""Ansible module: dockerd begins anew with settings that changed, and only then."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.docker_settings import apply, began, due, forget, remember, stamp_of
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_docker_settings
short_description: Have dockerd begin anew with settings that changed
description:
  - C(remembered) comes before I(files) are written - it sees to it that a stamp says with what dockerd began.
  - C(begun) says that dockerd began with what is in them now.
  - C(applied) restarts the service C(docker) where it runs with something else.
  - C(forgotten) takes the stamp away.
options:
  state:
    description: Which of them.
    type: str
    choices: [remembered, begun, applied, forgotten]
    required: true
  manifest:
    description: The ownership manifest's file; the stamp lies in the folder C(services) beside it.
    type: path
    required: true
  files:
    description: Files that dockerd reads at its start, there or not.
    type: list
    elements: str
    default: []
  running:
    description: Whether dockerd runs. With C(remembered) only.
    type: bool
    default: true
  pauses:
    description:
      - Services that do not run while it is restarted. Nomad's driver would take that for the end of all containers.
    type: list
    elements: str
    default: []
  changed_before:
    description:
      - Whether earlier tasks changed the files. Counts in check mode only, where they are not written; else their
        content tells.
    type: bool
    default: false
author: Roost developers
"""

EXAMPLES = r"""
- name: Have dockerd read what changed
  roost_docker_settings:
    state: applied
    manifest: /var/lib/roost/manifest
    files: [/etc/docker/daemon.json]
    pauses: [roost-nomad]
"""

RETURN = r"""
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["remembered", "begun", "applied", "forgotten"], "required": True},
            "manifest": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
            "running": {"type": "bool", "default": True},
            "pauses": {"type": "list", "elements": "str", "default": []},
            "changed_before": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    stamp, files = stamp_of(Path(params["manifest"])), params["files"]
    changed = False
    try:
        if params["state"] == "applied":
            told = params["changed_before"] or due(stamp, files)
            changed = told if module.check_mode else apply(stamp, files, params["pauses"])
        elif module.check_mode:
            pass  # a stamp of ours is nothing that a user has to be told of
        elif params["state"] == "begun":
            began(stamp, files)
        elif params["state"] == "remembered":
            remember(stamp, files, running=params["running"])
        else:
            forget(stamp)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
