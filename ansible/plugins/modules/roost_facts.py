#!/usr/bin/python
"""Ansible module: what this machine is; changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.hosts.collect import collect
from roost.hosts.tiers import tier_of

DOCUMENTATION = r"""
module: roost_facts
short_description: Look at this machine
description:
  - Collects operating system, processor, memory, disks, graphics processors, addresses, listening ports and Docker.
  - Changes nothing and writes nothing.
options:
  paths:
    description: Paths whose disk matters; they need not exist.
    type: list
    elements: str
    default: []
  manifest:
    description: The ownership manifest, from which it is known whether Docker is ours.
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
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "manifest": {"type": "path"},
        },
        supports_check_mode=True,
    )
    manifest = module.params["manifest"]
    facts = collect(module.params["paths"], manifest=Path(manifest) if manifest else None)
    module.exit_json(changed=False, roost_host=facts.as_dict(), roost_tier=asdict(tier_of(facts)))


if __name__ == "__main__":
    main()
