#!/usr/bin/python
"""Ansible module: whether a machine is as the last run left it, so that there is nothing to do there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.footprint import compare
from roost.fleet.footprint.look import Sights, look, look_at_nomad
from roost.fleet.gate import Asker
from roost.fleet.nomad_api import NOMAD_OPTIONS, NomadAccess, NomadClient
from roost.fleet.rolling import record
from roost.fleet.rolling.progress import publish
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_footprint
short_description: See whether a machine is as the last run left it
description:
  - C(kept) writes down what the machine is like at the end of a run that did all there was to do, and that the
    machine is brought to its settings.
  - C(compared) looks again and says what is another thing than then. It changes nothing.
options:
  state:
    description: Which of both.
    type: str
    choices: [kept, compared]
    required: true
  folder:
    description: Folder of what is kept and remembered.
    type: path
    required: true
  wish:
    description: Hash of all that the machine is to be brought to and of the fleet around it (filter roost_wish_hash).
    type: str
    required: true
  settings:
    description: Hash of the part of it that roost_update knows as settings (filter roost_settings_hash).
    type: str
    default: ""
  made:
    description: Hash of what the machine got from the first one.
    type: str
    default: ""
  release:
    description: The release that was applied.
    type: str
    default: ""
  trees:
    description: Files, links, and folders with all below them, that a run makes.
    type: list
    elements: path
    default: []
  but:
    description: Paths among them that something else writes.
    type: list
    elements: path
    default: []
  accounts:
    description: Operators whose keys a run writes.
    type: list
    elements: str
    default: []
  services:
    description: Services that are not ours and have to run.
    type: list
    elements: str
    default: []
  commands:
    description: Commands, as lists of words, whose output has to be the same.
    type: list
    elements: list
    default: []
  manifest:
    description: Path of the ownership manifest.
    type: path
    required: true
  node:
    description: Name of this machine in Nomad.
    type: str
    required: true
  first:
    description: Whether the jobs of the whole fleet are this machine's affair.
    type: bool
    default: false
  nomad_version:
    description: Version that its Nomad must have.
    type: str
    required: true
  engine_key:
    description: Key of the model servers.
    type: str
    default: ""
extends_documentation_fragment: [roost_nomad]
author: Roost developers
"""

EXAMPLES = r"""
- name: See whether anything is other than the last run left it
  roost_footprint:
    state: compared
    folder: /var/lib/roost/update
    wish: "{{ all_variables | roost_wish_hash }}"
    trees: [/etc/roost]
    manifest: /var/lib/roost/manifest
    node: two
    nomad_version: 1.11.3
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    token: "{{ operator_token }}"
"""

RETURN = r"""
same:
  description: Whether nothing is another thing than the last run left it.
  type: bool
  returned: always
differences:
  description: What is another thing, by name.
  type: list
  returned: always
"""


def see(params: dict[str, Any], client: NomadClient) -> compare.Footprint:
    """Look at the machine."""
    tls = Path(params["tls_dir"])
    sights = Sights(
        trees=[Path(tree) for tree in params["trees"]],
        but=[Path(path) for path in params["but"]],
        accounts=params["accounts"],
        manifest=Path(params["manifest"]),
        certificates=tls,
        services=params["services"],
        commands=[[str(word) for word in command] for command in params["commands"]],
    )
    ask = Asker(params["engine_key"], tls / "ca.pem")
    nomad, fault = look_at_nomad(client, params["node"], ask, params["nomad_version"], first=params["first"])
    return compare.Footprint(params["wish"], look(sights) | nomad, fault)


def compared(params: dict[str, Any], client: NomadClient) -> list[str]:
    """Return what is another thing than the last run left it."""
    folder = Path(params["folder"])
    known = record.read(folder)
    before = compare.read(folder)
    if before is None or known.state != "passed":
        return ["nothing is known of the last run" if before is None else "the last run did not come to its end"]
    return compare.differences(before, see(params, client))


def kept(params: dict[str, Any], client: NomadClient) -> list[str]:
    """Keep what the machine is like; one that is new has come to its end here."""
    folder = Path(params["folder"])
    known = record.read(folder)
    if not known.state:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        known = replace(
            known, state="passed", settings=params["settings"], made=params["made"], release=params["release"], at=at
        )
        record.write(folder, known)
        publish(client, params["node"], known)
    now = see(params, client)
    found = compare.differences(compare.read(folder), now)
    compare.keep(folder, now)
    return found


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "compared"], "required": True},
            "folder": {"type": "path", "required": True},
            "wish": {"type": "str", "required": True},
            "settings": {"type": "str", "default": ""},
            "made": {"type": "str", "default": ""},
            "release": {"type": "str", "default": ""},
            "trees": {"type": "list", "elements": "path", "default": []},
            "but": {"type": "list", "elements": "path", "default": []},
            "accounts": words,
            "services": words,
            "commands": {"type": "list", "elements": "list", "default": []},
            "manifest": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
            "first": {"type": "bool", "default": False},
            "nomad_version": {"type": "str", "required": True},
            **NOMAD_OPTIONS,
            "engine_key": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    tls = Path(params["tls_dir"])
    client = NomadClient(NomadAccess.below(params["address"], tls, params["token"]))
    try:
        act = compared if params["state"] == "compared" or module.check_mode else kept
        found = act(params, client)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=False, same=not found, differences=found)


if __name__ == "__main__":
    main()
