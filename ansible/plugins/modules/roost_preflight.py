#!/usr/bin/python
"""Ansible module: whether Roost can be installed on this machine; names everything in the way at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.hosts.collect import collect
from roost.hosts.findings import as_text, errors, warnings
from roost.hosts.preflight import PortWish, Wishes, check
from roost.hosts.registries import reach

DOCUMENTATION = r"""
module: roost_preflight
short_description: Check that Roost can be installed on this machine
description:
  - Compares the machine with what the installation needs. Fails with everything that stands in the way, and returns
    what should be looked at as warnings.
  - Changes nothing, in check mode or not.
options:
  runtime:
    description: C(docker) for containers, C(local) for plain processes.
    type: str
    choices: [docker, local]
    default: docker
  engine:
    description: Which engine serves models; C(llama-cpp-python) needs C(runtime=local).
    type: str
    default: llama.cpp
  min_memory_mib:
    description: Memory needed, in MiB.
    type: int
    default: 0
  disks:
    description: Free space needed, in MiB by path. Needs on one file system are added up.
    type: dict
    default: {}
  ports:
    description: TCP ports needed, each with the variable that sets it, its number and the address it is bound to.
    type: list
    elements: dict
    default: []
    suboptions:
      variable:
        description: The variable that sets the port.
        type: str
        required: true
      port:
        description: The number.
        type: int
        required: true
      address:
        description:
          - The address it is bound to; empty for the address of the default route, or I(loopback_address) without one.
        type: str
        default: ""
  loopback_address:
    description: What stands for the address of the default route where there is none.
    type: str
    default: ""
  listen_address:
    description: Address on the LAN where the API shall answer; empty for none.
    type: str
    default: ""
  docker_min_version:
    description: Oldest version of a Docker that is already there.
    type: str
    default: ""
  our_paths:
    description: Folders of Roost. A process started from or configured in one of them may hold the ports.
    type: list
    elements: str
    default: []
  our_uids:
    description: Numbers of Roost's own users; their processes are its own.
    type: list
    elements: int
    default: []
  offline:
    description: Nothing is fetched from a network.
    type: bool
    default: false
  registries:
    description: Package clients that must reach their registry; asked only when I(offline) is false.
    type: list
    elements: str
    choices: [apt, pip]
    default: []
  extra_ca_bundle:
    description: PEM file trusted while asking the registries, or empty.
    type: str
    default: ""
author: Roost developers
"""

EXAMPLES = r"""
- name: Check this machine
  roost_preflight:
    min_memory_mib: 1500
    disks: {/var/lib/roost: 4000}
    ports:
      - {variable: api_port, port: 8360, address: 127.0.0.1}
    registries: [apt, pip]
"""

RETURN = r"""
findings:
  description: Everything found, each with id, severity, what, why and fix.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    port_spec = {
        "variable": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "address": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={
            "runtime": {"type": "str", "choices": ["docker", "local"], "default": "docker"},
            "engine": {"type": "str", "default": "llama.cpp"},
            "min_memory_mib": {"type": "int", "default": 0},
            "disks": {"type": "dict", "default": {}},
            "ports": {"type": "list", "elements": "dict", "default": [], "options": port_spec},
            "loopback_address": {"type": "str", "default": ""},
            "listen_address": {"type": "str", "default": ""},
            "docker_min_version": {"type": "str", "default": ""},
            "our_paths": {"type": "list", "elements": "str", "default": []},
            "our_uids": {"type": "list", "elements": "int", "default": []},
            "offline": {"type": "bool", "default": False},
            "registries": {"type": "list", "elements": "str", "choices": ["apt", "pip"], "default": []},
            "extra_ca_bundle": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    disks = {path: int(mib) for path, mib in wanted["disks"].items()}
    facts = collect(list(disks))
    here = facts.default_address or wanted["loopback_address"]
    wishes = Wishes(
        runtime=wanted["runtime"],
        engine=wanted["engine"],
        offline=wanted["offline"],
        min_memory_mib=wanted["min_memory_mib"],
        disks=disks,
        ports=[PortWish(p["variable"], p["port"], p["address"] or here) for p in wanted["ports"]],
        listen_address=wanted["listen_address"],
        our_paths=wanted["our_paths"],
        our_uids=wanted["our_uids"],
        docker_min_version=wanted["docker_min_version"],
    )
    bundle = Path(wanted["extra_ca_bundle"]) if wanted["extra_ca_bundle"] else None
    said = {} if wanted["offline"] else reach(wanted["registries"], extra_ca_bundle=bundle)
    findings = check(facts, wishes, said)
    plain = [asdict(finding) for finding in findings]
    if errors(findings):
        count = len(errors(findings))
        module.fail_json(
            msg=f"{count} thing{'s' if count > 1 else ''} must be put right first:\n{as_text(findings)}", findings=plain
        )
    for finding in warnings(findings):
        module.warn(f"{finding.what} {finding.why} {finding.fix}")
    module.exit_json(changed=False, findings=plain)


if __name__ == "__main__":
    main()
