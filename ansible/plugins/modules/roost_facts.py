#!/usr/bin/python
"""Ansible module: what this machine is; changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.hosts.node_meta import node_meta
from roost.hosts.remembered import as_dict
from roost.hosts.report import look
from roost.ops.errors import RoostError

DOCUMENTATION = r"""
module: roost_facts
short_description: Look at this machine
description:
  - Collects operating system, processor, memory, disks, graphics processors, addresses, listening ports and Docker.
  - Changes nothing and writes nothing. Where no memory bandwidth is remembered it is measured, except in check mode.
options:
  paths:
    description: Paths whose disk matters; they need not exist.
    type: list
    elements: str
    default: []
  manifest:
    description: The ownership manifest, from which it is known whether Docker is ours.
    type: path
  bandwidth_file:
    description: What the memory probe found before; without it nothing is measured.
    type: path
author: Roost developers
"""

EXAMPLES = r"""
- name: Look at this machine
  roost_facts:
    paths: [/var/lib/roost]
  register: found
"""

RETURN = r"""
roost_host:
  description: The facts, as in roost.hosts.facts.HostFacts.
  type: dict
  returned: always
roost_tier:
  description: Which class of models the machine can serve, as in roost.hosts.tiers.Tier.
  type: dict
  returned: always
roost_node_meta:
  description: What Nomad is told of the node, as in roost.hosts.node_meta.
  type: dict
  returned: always
roost_bandwidth:
  description: What the memory probe found, with the machine it is good for; empty if it was not measured.
  type: dict
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "manifest": {"type": "path"},
            "bandwidth_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    manifest, kept = (Path(p) if p else None for p in (module.params["manifest"], module.params["bandwidth_file"]))
    paths = module.params["paths"]
    once = kept is not None and not module.check_mode
    try:
        found = look(paths, manifest=manifest, bandwidth_file=kept, measure_once=once)
    except RoostError as error:  # a machine that is too full or too busy to measure can be served all the same
        module.warn(str(error))
        found = look(paths, manifest=manifest)
    module.exit_json(
        changed=False,
        roost_host=found.facts.as_dict(),
        roost_tier=asdict(found.tier),
        roost_node_meta=node_meta(found.facts, found.tier, found.bandwidth),
        roost_bandwidth=as_dict(found.facts, found.bandwidth) if found.bandwidth else {},
    )


if __name__ == "__main__":
    main()
