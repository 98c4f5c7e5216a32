#!/usr/bin/python
"""Ansible module: give up Docker to whoever uses it, so that it is not removed with Roost."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.docker_owner import Brought, hand_over, used_by_others
from roost.ops.errors import RoostError, user_message
from roost.ops.ownership import Manifest

DOCUMENTATION = r"""
module: roost_docker_owner
short_description: Forget that Docker is ours where it is somebody else's
description:
  - With I(used) false, a Docker runs that is not of our package. What was recorded for it is forgotten.
  - With I(used) true, asks the running Docker for containers, tagged images and named volumes that are not ours; if
    it holds any, Docker is no longer ours, and stays.
options:
  manifest:
    description: The ownership manifest.
    type: path
    required: true
  used:
    description: Whether Docker is given up only if others use it.
    type: bool
    required: true
  packages:
    description: Packages that brought Docker, and those it does not run without.
    type: list
    elements: str
    required: true
  paths:
    description: What Docker makes beside its package.
    type: list
    elements: str
    required: true
  groups:
    description: Groups that the package makes.
    type: list
    elements: str
    required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Leave Docker to those who use it
  roost_docker_owner:
    manifest: /var/lib/roost/manifest
    used: true
    packages: [docker.io, iptables]
    paths: [/var/lib/docker]
    groups: [docker]
"""

RETURN = r"""
forgotten:
  description: What is no longer ours.
  type: list
  returned: always
note:
  description: Why Docker stays, for the user.
  type: str
  returned: when it stays because others use it
"""

SHOWN = 5


def note_about(used: list[str]) -> str:
    """Return the sentence that says why Docker stays."""
    more = f" and {len(used) - SHOWN} more" if len(used) > SHOWN else ""
    return (
        f"Docker stays, with its data: it holds {', '.join(used[:SHOWN])}{more}. It is no longer Roost's; "
        "remove it with apt when you need it no more."
    )


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "manifest": {"type": "path", "required": True},
            "used": {"type": "bool", "required": True},
            "packages": words,
            "paths": words,
            "groups": words,
        },
        supports_check_mode=True,
    )
    params = module.params
    manifest = Manifest(Path(params["manifest"]))
    brought = Brought(params["packages"], params["paths"], params["groups"])
    result: dict[str, object] = {}
    try:
        forgotten = hand_over(manifest, brought, dry_run=True)
        if params["used"] and forgotten:
            used = used_by_others()
            if used:
                result["note"] = note_about(used)
            else:
                forgotten = []
        if forgotten and not module.check_mode:
            hand_over(manifest, brought)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    text = "".join(f"no longer ours: {name}\n" for name in forgotten)
    module.exit_json(changed=bool(forgotten), forgotten=forgotten, diff={"before": "", "after": text}, **result)


if __name__ == "__main__":
    main()
