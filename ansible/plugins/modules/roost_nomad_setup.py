#!/usr/bin/python
"""Ansible module: wait for Nomad, set up its ACL and the agent's policy."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet import node_identity, own_token
from roost.fleet.agent_jobs import GATEWAY_JOB
from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.membership import server_names
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient, NomadUnreachableError
from roost.fleet.nomad_setup import (
    AGENT_POLICY,
    GATEWAY_POLICY,
    ensure_acl,
    ensure_job_policy,
    wait_for_leader,
    wait_for_node,
)
from roost.ops import service_names
from roost.ops.errors import RoostError, user_message
from roost.ops.services import begin_anew

DOCUMENTATION = r"""
module: roost_nomad_setup
short_description: Wait until Nomad leads and its node is ready, set up the ACL
description:
  - Waits for a leader, makes the operator's token the first management token, attaches the agent's policy to its
    workload identity, and waits until the node's driver is healthy.
  - Where the servers lost their state, or do not accept the heartbeats of this machine's Nomad for another reason, that
    Nomad is begun anew before, since only then it asks for another identity.
options:
  node:
    description: Name of the node that must be ready; empty for any.
    type: str
    default: ""
  first:
    description: Whether this machine sets up the access control for the whole fleet; others wait for it.
    type: bool
    default: true
  set_up:
    description: What was set up on machines of the fleet in this run so far, their I(made).
    type: list
    elements: str
    default: []
  at_work:
    description: Whether the machine was part of the fleet before this run.
    type: bool
    default: false
  begun:
    description: Whether this run has begun its Nomad anew already.
    type: bool
    default: false
  driver:
    description: The driver that must be healthy.
    type: str
    choices: [docker, raw_exec]
    required: true
  snapshot_token:
    description: File with the machine's own token for saving snapshots; empty to leave it alone.
    type: path
  saves_snapshots:
    description: Whether the machine is to have that token.
    type: bool
    default: false
  snapshot_nodes:
    description: The nodes of all machines that save snapshots, as far as they are known; what other machines hold for
      it is ended by the first one. Servers that Nomad knows count too.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for each.
    type: int
    default: 60
extends_documentation_fragment: [roost_nomad]
author: Roost developers
"""

EXAMPLES = r"""
- name: Set Nomad up
  roost_nomad_setup:
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    token: "{{ lookup('ansible.builtin.file', '/etc/roost/secrets/nomad-operator-token') }}"
    driver: docker
"""

RETURN = r"""
leader:
  description: RPC address of the leader.
  type: str
  returned: when Nomad answers
made:
  description: What was set up, and whether Nomad was begun anew.
  type: list
  returned: always
"""


def begun_anew(module: AnsibleModule, client: NomadClient) -> list[str]:
    """Begin Nomad anew where the servers refuse this machine until then; return what was done."""
    params = module.params
    where = {key: params[key] for key in ("first", "at_work", "begun")}
    anew = node_identity.set_up_anew(params["set_up"], **where)
    if not anew and (params["begun"] or not params["at_work"] or not node_identity.is_silent(client)):
        return []
    if not module.check_mode:
        begin_anew(service_names.NOMAD)
        wait_for_leader(client, params["timeout"])
    return [node_identity.BEGUN]


def settled_tokens(module: AnsibleModule, client: NomadClient) -> list[str]:
    """Have servers, and only they, hold a token that saves snapshots; return what was done."""
    params, dry_run = module.params, module.check_mode
    settle = own_token.ensure if params["saves_snapshots"] else own_token.drop
    made = []
    if settle(client, Path(params["snapshot_token"]), params["node"], dry_run=dry_run):
        made.append("snapshot token")
    if params["first"]:
        saving = {*params["snapshot_nodes"], *server_names(client)} if params["saves_snapshots"] else set()
        made += [f"end of {name}" for name in own_token.sweep(client, saving, dry_run=dry_run)]
    return made


def set_up(module: AnsibleModule) -> None:
    """Do it, or say what would be done in check mode."""
    params = module.params
    dry_run: bool = module.check_mode
    tls = Path(params["tls_dir"])
    token = params["token"].strip()
    if dry_run and not token:
        module.exit_json(changed=True, made=[node_identity.ACL, "policy"])
    access = NomadAccess.below(params["address"], tls, token)
    client = NomadClient(access)
    anonymous = NomadClient(NomadAccess(access.address, access.ca, access.cert, access.key))
    try:
        leader = client.leader() if dry_run else wait_for_leader(client, params["timeout"])
    except NomadUnreachableError:
        if dry_run:
            module.exit_json(changed=True, made=[node_identity.ACL, "policy"])
        raise
    made: list[str] = []
    if params["first"]:
        made = [node_identity.ACL] if ensure_acl(client, anonymous, token, dry_run=dry_run) else []
        policies = {AGENT_JOB: AGENT_POLICY, GATEWAY_JOB: GATEWAY_POLICY}
        first = dry_run and bool(made)
        if [job for job, rules in policies.items() if first or ensure_job_policy(client, job, rules, dry_run=dry_run)]:
            made.append("policy")
    made += begun_anew(module, client)
    if not dry_run:
        wait_for_node(client, params["timeout"], params["driver"], params["node"])
    # Before there is any access control, in check mode, nobody can be asked for tokens.
    if params["snapshot_token"] and not (dry_run and node_identity.ACL in {*made, *params["set_up"]}):
        made += settled_tokens(module, client)
    module.exit_json(
        changed=bool(made), leader=leader, made=made, diff={"before": "", "after": "".join(f"{m}\n" for m in made)}
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **NOMAD_OPTIONS,
            "node": {"type": "str", "default": ""},
            "first": {"type": "bool", "default": True},
            "set_up": {"type": "list", "elements": "str", "default": []},
            "at_work": {"type": "bool", "default": False},
            "begun": {"type": "bool", "default": False},
            "driver": {"type": "str", "choices": ["docker", "raw_exec"], "required": True},
            "snapshot_token": {"type": "path", "no_log": False},
            "saves_snapshots": {"type": "bool", "default": False},
            "snapshot_nodes": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        set_up(module)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))


if __name__ == "__main__":
    main()
