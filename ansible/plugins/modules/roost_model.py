#!/usr/bin/python
"""Ansible module: model files at their places, verified."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.models.catalogue import load_catalogue
from roost.models.fetch import Places, ensure_models
from roost.models.lock_file import default_path
from roost.models.pull import known_downloads
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_model
short_description: Have model files on this node, whole and verified
description:
  - Brings each named model of the catalogue to C(models_dir)/<16 hex digits of its sha256>/<name>, read-only.
  - Looks into the cache, then the offline folder, then the catalogue's sources. With an offline folder the network is
    not used.
options:
  names:
    description: Models of the catalogue.
    type: list
    elements: str
    required: true
  catalogue:
    description: The catalogue file.
    type: path
    required: true
  custom:
    description: Models of the operator, merged over the catalogue's.
    type: dict
    default: {}
  models_dir:
    description: Folder of the models.
    type: path
    required: true
  cache_dir:
    description: Folder of downloads, safe to delete.
    type: path
    required: true
  offline_dir:
    description: Folder made by C(roost bundle), or empty.
    type: str
    default: ""
  extra_ca_bundle:
    description: PEM file trusted while fetching, or empty.
    type: str
    default: ""
  peers:
    description: Addresses of other nodes to ask first.
    type: list
    elements: str
    default: []
  peer_ca:
    description: PEM file of the CA that is trusted for them.
    type: path
  peer_cert:
    description: PEM file of the certificate to show them.
    type: path
  peer_key:
    description: PEM file of its key.
    type: path
  rehash:
    description: Hash files again that are unchanged by size and time.
    type: bool
    default: false
author: Roost developers
"""

EXAMPLES = r"""
- name: Fetch the default model
  roost_model:
    names: [smollm2-135m-instruct]
    catalogue: group_vars/models.yaml
    models_dir: /var/lib/roost/models
    cache_dir: /var/cache/roost
"""

RETURN = r"""
models:
  description:
    - For each model its name, path, and the source it was fetched from (empty if it was there).
    - In check mode the path is empty while only a hub knows which file is meant; it is not asked.
  type: list
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "catalogue": {"type": "path", "required": True},
            "custom": {"type": "dict", "default": {}},
            "models_dir": {"type": "path", "required": True},
            "cache_dir": {"type": "path", "required": True},
            "offline_dir": {"type": "str", "default": ""},
            "extra_ca_bundle": {"type": "str", "default": ""},
            "peers": {"type": "list", "elements": "str", "default": []},
            "peer_ca": {"type": "path"},
            "peer_cert": {"type": "path"},
            "peer_key": {"type": "path"},
            "rehash": {"type": "bool", "default": False},
        },
        required_together=[("peer_cert", "peer_key")],
        supports_check_mode=True,
    )
    wanted = module.params
    places = Places(
        models_dir=Path(wanted["models_dir"]),
        cache_dir=Path(wanted["cache_dir"]),
        offline_dir=Path(wanted["offline_dir"]) if wanted["offline_dir"] else None,
        extra_ca_bundle=Path(wanted["extra_ca_bundle"]) if wanted["extra_ca_bundle"] else None,
        peers=tuple(wanted["peers"]),
        peer_ca=Path(wanted["peer_ca"]) if wanted["peer_ca"] else None,
        peer_identity=(Path(wanted["peer_cert"]), Path(wanted["peer_key"])) if wanted["peer_cert"] else None,
    )
    try:
        catalogue = load_catalogue(Path(wanted["catalogue"]), custom=wanted["custom"])
        chosen = known_downloads(wanted["names"], catalogue, places, default_path(), dry_run=module.check_mode)
        unlocked = [n for name in wanted["names"] for n in catalogue.unlocked(name)] if module.check_mode else []
        done = ensure_models(chosen, places, dry_run=module.check_mode, rehash=wanted["rehash"])
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(
        changed=bool(unlocked) or any(outcome.changed for outcome in done),
        models=[
            *({"name": o.name, "path": str(o.path), "source": o.source} for o in done),
            *({"name": name, "path": "", "source": ""} for name in unlocked),
        ],
        diff={
            "before": "".join(o.before for o in done),
            "after": "".join([*(o.after for o in done), *(f"{n}: would be locked and fetched\n" for n in unlocked)]),
        },
    )


if __name__ == "__main__":
    main()
