#!/usr/bin/python
"""Ansible module: have a node say what it is: the collector, Ansible's local facts, the remembered bandwidth."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.hosts.publish import Published, publish
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_collector
short_description: Have a node say what it is
description:
  - Writes the collector (one file that any Python from 3.9 on runs), a script that has Ansible read it as
    C(ansible_local.roost), and what the memory probe found.
options:
  collector:
    description: Where the collector belongs.
    type: path
    required: true
  script:
    description: Where the script belongs, in Ansible's folder of local facts.
    type: path
    required: true
  bandwidth_file:
    description: Where the memory's bandwidth is remembered.
    type: path
    required: true
  bandwidth:
    description: What roost_facts returned of it; empty leaves the file alone.
    type: dict
    default: {}
  paths:
    description: Paths whose disk the facts tell.
    type: list
    elements: str
    required: true
  manifest:
    description: The ownership manifest.
    type: path
    required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Have the node say what it is
  roost_collector:
    collector: /opt/roost/collect.pyz
    script: /etc/ansible/facts.d/roost.fact
    bandwidth_file: /var/lib/roost/bandwidth.json
    paths: [/var/lib/roost]
    manifest: /var/lib/roost/manifest
"""

RETURN = r"""
written:
  description: The files that were written, or would be.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "collector": {"type": "path", "required": True},
            "script": {"type": "path", "required": True},
            "bandwidth_file": {"type": "path", "required": True},
            "bandwidth": {"type": "dict", "default": {}},
            "paths": {"type": "list", "elements": "str", "required": True},
            "manifest": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    files = Published(Path(given["collector"]), Path(given["script"]), Path(given["bandwidth_file"]))
    try:
        changes = publish(files, given["paths"], Path(given["manifest"]), given["bandwidth"], dry_run=module.check_mode)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(
        changed=bool(changes),
        written=[str(change.path) for change in changes],
        diff={"before": "".join(c.before for c in changes), "after": "".join(c.after for c in changes)},
    )


if __name__ == "__main__":
    main()
