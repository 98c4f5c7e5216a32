#!/usr/bin/python
"""Ansible module: users, the group and the folders of Roost, in one pass."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.errors import RoostError, user_message
from roost.ops.layout import Folder, SystemUser, ensure_layout, remove_layout
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
  state:
    description: C(present) makes them; C(absent) removes our users and groups, and those of I(remove) that are ours.
    type: str
    choices: [present, absent]
    default: present
  group:
    description: Group of the users; needed with them.
    type: str
  users:
    description: Users, each with name, uid and comment; with C(reserved) one whose number may be somebody's already.
    type: list
    elements: dict
  folders:
    description: Folders, each with path and mode, and the number of its owner, which is root where none is named.
    type: list
    elements: dict
  files:
    description: Paths that others make and that are ours.
    type: list
    elements: str
    default: []
  groups:
    description: Groups that others make and that are ours.
    type: list
    elements: str
    default: []
  accounts:
    description: Users, with the group of their name, that others make and that are ours.
    type: list
    elements: str
    default: []
  remove:
    description: With C(absent), the paths to remove.
    type: list
    elements: path
    default: []
  remove_if_empty:
    description: With C(absent), folders to remove when nothing is left in them, the deepest first.
    type: list
    elements: path
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
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "group": {"type": "str"},
            "users": {"type": "list", "elements": "dict"},
            "folders": {"type": "list", "elements": "dict"},
            "files": {"type": "list", "elements": "str", "default": []},
            "groups": {"type": "list", "elements": "str", "default": []},
            "accounts": {"type": "list", "elements": "str", "default": []},
            "remove": {"type": "list", "elements": "path", "default": []},
            "remove_if_empty": {"type": "list", "elements": "path", "default": []},
        },
        required_if=[("state", "present", ("folders",))],
        required_together=[("users", "group")],
        supports_check_mode=True,
    )
    params = module.params
    manifest = Manifest(Path(params["manifest"]))
    try:
        if params["state"] == "absent":
            paths = [Path(p) for p in params["remove"]]
            shared = [Path(p) for p in params["remove_if_empty"]]
            gone = remove_layout(manifest, paths, if_empty=shared, dry_run=module.check_mode)
            module.exit_json(changed=bool(gone), made=[], diff={"before": "".join(f"{g}\n" for g in gone), "after": ""})
        made = ensure_layout(
            manifest,
            params["group"] or "",
            [
                SystemUser(u["name"], int(u["uid"]), u["comment"], u.get("reserved") is True)
                for u in params["users"] or ()
            ],
            [Folder(Path(f["path"]), str(f["mode"]), int(f.get("uid", 0))) for f in params["folders"]],
            params["files"],
            groups=params["groups"],
            accounts=params["accounts"],
            dry_run=module.check_mode,
        )
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(made), made=made, diff={"before": "", "after": "".join(f"{m}\n" for m in made)})


if __name__ == "__main__":
    main()
