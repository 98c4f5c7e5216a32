#!/usr/bin/python
"""Ansible module: the fleet's certificate authority, this node's certificates and the fleet's secrets."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.errors import RoostError, user_message
from roost.ops.pki import LeafSpec, ensure_pki, ensure_secrets

DOCUMENTATION = r"""
module: roost_pki
short_description: Make the fleet's certificates and secrets where they are missing
description:
  - Makes a certificate authority, certificates signed by it, and random secrets. What is there and good stays.
  - A certificate is made again when its host names changed or it is about to expire.
options:
  tls_dir:
    description: Folder of the certificates and keys.
    type: path
    required: true
  secrets_dir:
    description: Folder of the secrets.
    type: path
    required: true
  leaves:
    description: Certificates to have, by file name, each with the host names and addresses it is valid for.
    type: dict
    required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Make this node's certificate
  roost_pki:
    tls_dir: /etc/roost/tls
    secrets_dir: /etc/roost/secrets
    leaves:
      node: [server.global.nomad, client.global.nomad, localhost, 127.0.0.1]
"""

RETURN = r"""
made:
  description: Names of the certificates and secrets that were made.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "tls_dir": {"type": "path", "required": True},
            "secrets_dir": {"type": "path", "required": True, "no_log": False},
            "leaves": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    leaves = [LeafSpec(name, tuple(str(h) for h in hosts)) for name, hosts in module.params["leaves"].items()]
    try:
        made = ensure_pki(Path(module.params["tls_dir"]), leaves, dry_run=module.check_mode)
        made += ensure_secrets(Path(module.params["secrets_dir"]), dry_run=module.check_mode)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(made), made=made, diff={"before": "", "after": "".join(f"{m}\n" for m in made)})


if __name__ == "__main__":
    main()
