#!/usr/bin/python
"""Ansible module: the fleet's certificate authority, this node's certificates and the fleet's secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from roost.ops.authority import Node
from roost.ops.errors import RoostError, user_message
from roost.ops.files import write_atomic
from roost.ops.pki import LeafSpec, ensure_pki, ensure_secrets

DOCUMENTATION = r"""
module: roost_pki
short_description: Make the fleet's CA, certificates and secrets
description:
  - Makes what is missing, wrong or near its end. A certificate authority that is there is kept.
  - Where the authority is on the controller and this node is another machine, the action plugin of the same name
    calls the module twice. C(ask) makes keys and returns signing requests, C(install) takes what was signed.
options:
  tls_dir:
    description: Folder of certificates and keys.
    type: path
    required: true
  secrets_dir:
    description: Folder of secrets.
    type: path
    required: true
  leaves:
    description: Certificates to issue, name to a list of the DNS names and IP addresses it is valid for.
    type: dict
    required: true
  state:
    description: C(present) has the authority here; C(ask) and C(install) are the two steps of a node without it.
    type: str
    choices: [present, ask, install]
    default: present
  ca:
    description: The authority's certificate as PEM, for C(ask) and C(install).
    type: str
    default: ""
  signed:
    description: Certificates as PEM by name, for C(install).
    type: dict
    default: {}
  secrets:
    description: Secrets that this node holds, by name, for C(ask) and C(install).
    type: dict
    default: {}
  names:
    description: Which secrets of the authority this node holds; read by the action plugin.
    type: list
    elements: str
    default: []
  authority_tls_dir:
    description: Folder of the authority on the controller; read by the action plugin.
    type: str
    default: ""
  authority_secrets_dir:
    description: Folder of its secrets there; read by the action plugin.
    type: str
    default: ""
  renew:
    description: Whether certificates that are good are made anew too.
    type: bool
    default: false
  copies:
    description: Leaves that another user reads. Where there is such a leaf, its key and certificate are copied.
    type: list
    elements: dict
    default: []
    suboptions:
      leaf:
        description: The name of the leaf.
        type: str
        required: true
      folder:
        description: Where key.pem and cert.pem are put.
        type: path
        required: true
      uid:
        description: The number of the user, who alone may read them.
        type: int
        required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Make certificates
  roost_pki:
    tls_dir: /etc/roost/tls
    secrets_dir: /etc/roost/secrets
    leaves: {node: [server.global.nomad, client.global.nomad, localhost, 127.0.0.1]}
"""

RETURN = r"""
made:
  description: Names of the certificates and secrets that were made, or would be.
  type: list
  returned: always
requests:
  description: Signing requests as PEM by name.
  type: dict
  returned: with C(ask)
"""

COPY: dict[str, Any] = {
    "leaf": {"type": "str", "required": True},
    "folder": {"type": "path", "required": True},
    "uid": {"type": "int", "required": True},
}


def copied(params: dict[str, Any], *, dry_run: bool) -> list[str]:
    """Copy keys and certificates to where their users read them; return what was not there before."""
    source = Path(params["tls_dir"])
    made: list[str] = []
    for copy in params["copies"]:
        leaf, folder = copy["leaf"], Path(copy["folder"])
        if leaf not in params["leaves"]:
            continue
        for name, target in ((f"{leaf}-key.pem", "key.pem"), (f"{leaf}.pem", "cert.pem")):
            wanted = (source / name).read_bytes() if (source / name).exists() else b""
            path = folder / target
            if path.exists() and path.stat().st_uid == copy["uid"] and path.read_bytes() == wanted:
                continue
            if f"{leaf} files" not in made:
                made.append(f"{leaf} files")
            if not dry_run:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(path, wanted, mode=0o400, owner=copy["uid"])
    return made


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "tls_dir": {"type": "path", "required": True},
            "secrets_dir": {"type": "path", "required": True, "no_log": False},
            "leaves": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "ask", "install"], "default": "present"},
            "ca": {"type": "str", "default": ""},
            "signed": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "authority_tls_dir": {"type": "str", "default": ""},
            "authority_secrets_dir": {"type": "str", "default": "", "no_log": False},
            "renew": {"type": "bool", "default": False},
            "copies": {"type": "list", "elements": "dict", "default": [], "options": COPY},
        },
        supports_check_mode=True,
    )
    params = module.params
    dry_run: bool = module.check_mode
    leaves = [LeafSpec(name, tuple(str(h) for h in hosts)) for name, hosts in params["leaves"].items()]
    node = Node(
        Path(params["tls_dir"]), Path(params["secrets_dir"]), leaves, renew=params["renew"] and params["state"] == "ask"
    )
    requests: dict[str, str] = {}
    try:
        if params["state"] == "present":
            made = ensure_pki(node.tls_dir, leaves, dry_run=dry_run, renew=params["renew"])
            made += ensure_secrets(node.secrets_dir, dry_run=dry_run)
        else:
            made = [*(spec.name for spec in node.lacks(params["ca"])), *node.changed(params["ca"], params["secrets"])]
            if params["state"] == "ask" and not dry_run:
                requests = node.requests(params["ca"])
            elif params["state"] == "install":
                node.install(params["ca"], params["signed"], params["secrets"])
        if params["state"] != "ask" or not made:
            made += copied(params, dry_run=dry_run)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(
        changed=bool(made),
        made=made,
        requests=requests,
        diff={"before": "", "after": "".join(f"{m}\n" for m in made)},
    )


if __name__ == "__main__":
    main()
