#!/usr/bin/python
"""Ansible module: whether Roost can be installed on this machine; names everything in the way at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.hosts.collect import collect
from roost.hosts.preflight import check
from roost.hosts.preflight_wishes import wishes_from
from roost.hosts.registries import reach, unresolved

DOCUMENTATION = r"""
module: roost_preflight
short_description: Look for what would stand in the way of Roost on a machine
description:
  - Compares the machine with what the installation needs, and returns what was found. Never fails for it; that is
    M(roost_preflight_verdict)'s part, once all machines were looked at.
  - On a machine reached over a network a shell is enough; nothing of Roost has to be there.
  - Changes nothing, in check mode or not.
options:
  variables:
    description: Variables of group_vars/all.yaml that say what is needed; see roost.hosts.preflight_wishes.
    type: dict
    required: true
  site_file:
    description: The file that is there once Roost was set up.
    type: path
    required: true
  extra_ca_bundle:
    description: PEM file trusted while asking the registries, or empty.
    type: str
    default: ""
author: Roost developers
"""

EXAMPLES = r"""
- name: Look at this machine
  roost_preflight:
    variables: "{{ preflight_variables }}"
    site_file: /etc/roost/site.json
"""

RETURN = r"""
findings:
  description: Everything found, each with id, severity, what, why and fix.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "variables": {"type": "dict", "required": True},
            "site_file": {"type": "path", "required": True},
            "extra_ca_bundle": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    installed = Path(wanted["site_file"]).exists()
    variables = wanted["variables"]
    facts = collect([variables["roost_state_dir"], variables["roost_cache_dir"]])
    wishes = wishes_from(variables, installed=installed, here=facts.default_address)
    bundle = Path(wanted["extra_ca_bundle"]) if wanted["extra_ca_bundle"] else None
    quiet = wishes.offline or installed  # what is there needs no registry
    said = {} if quiet else reach(["apt", "pip"], extra_ca_bundle=bundle)
    findings = check(facts, wishes, said, unresolved=[] if quiet else unresolved())
    module.exit_json(changed=False, findings=[asdict(finding) for finding in findings])


if __name__ == "__main__":
    main()
