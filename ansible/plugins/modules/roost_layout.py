#!/usr/bin/python
"""Ansible module: users, the group and the folders of Roost, in one pass."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.errors import RoostError
from roost.ops.layout import Folder, SystemUser, ensure_layout
from roost.ops.ownership import Manifest

DOCUMENTATION = r"""
module: roost_layout
short_description: Make Roost's users, group and folders
description:
  - Records in the ownership manifest what is absent, then makes it. One pass instead of a task each, because every
    run of the playbook comes through here.
options:
  manifest:
    description: The ownership manifest.
    type: path
    required: true
  group:
    description: Group of the users.
    type: str
    required: true
  users:
    description: Users, each with name, uid and comment.
    type: list
    elements: dict
    required: true
  folders:
    description: Folders of root, each with path and mode.
    type: list
    elements: dict
    required: true
  files:
    description: Paths that others make and that are ours.
    type: list
    elements: str
    default: []
author: Roost developers
"""

EXAMPLES = r"""
- name: Make users and folders
  roost_layout:
    manifest: /var/lib/roost/manifest
    group: roost
    users: [{name: roost-agent, uid: 8361, comment: Roost agent service}]
    folders: [{path: /etc/roost, mode: "0755"}]
"""

RETURN = r"""
made:
  description: One line a change.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "manifest": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "users": {"type": "list", "elements": "dict", "required": True},
            "folders": {"type": "list", "elements": "dict", "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        made = ensure_layout(
            Manifest(Path(params["manifest"])),
            params["group"],
            [SystemUser(u["name"], int(u["uid"]), u["comment"]) for u in params["users"]],
            [Folder(Path(f["path"]), str(f["mode"])) for f in params["folders"]],
            params["files"],
            dry_run=module.check_mode,
        )
    except RoostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(made), made=made, diff={"before": "", "after": "".join(f"{m}\n" for m in made)})


if __name__ == "__main__":
    main()
