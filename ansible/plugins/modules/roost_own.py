#!/usr/bin/python
"""Ansible module: the ownership manifest, what Roost brought to this machine."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.errors import RoostError, user_message
from roost.ops.ownership import PRESENT, Manifest
from roost.ops.packages import Apt, installed, plan_install

DOCUMENTATION = r"""
module: roost_own
short_description: Record, list or forget what Roost brought to a machine
description:
  - Records a thing before it is made, only if it is absent at that moment; what was there before is never recorded,
    so C(uninstall.yaml) cannot take it away.
options:
  manifest:
    description: The manifest's file.
    type: path
    required: true
  kind:
    description: Kind of the things.
    type: str
    choices: [path, user, group, package, image, unit]
    required: true
  names:
    description: Names of the things. For packages, all that installing them would bring is recorded too.
    type: list
    elements: str
    default: []
  state:
    description: C(record) notes those of I(names) that are absent, C(query) lists, C(forget) takes I(names) out.
    type: str
    choices: [record, query, forget]
    default: record
author: Roost developers
"""

EXAMPLES = r"""
- name: Note that a folder will be ours
  roost_own:
    manifest: /var/lib/roost/manifest
    kind: path
    names: [/etc/roost]

- name: Ask which users are ours
  roost_own:
    manifest: /var/lib/roost/manifest
    kind: user
    state: query
  register: owned
"""

RETURN = r"""
names:
  description: With C(query), what is recorded of this kind; else what was recorded or forgotten now, or would be.
  type: list
  returned: always
"""


def absent(kind: str, names: list[str]) -> list[str]:
    """Return those of `names` that the host does not have, with all that packages would bring along.

    An image is recorded by whoever is about to make it, so it counts as absent.
    """
    if kind == "package":
        missing = sorted(set(names) - installed(names))
        return plan_install(Apt(), missing, may_update=False).new if missing else []
    is_there = PRESENT.get(kind)
    return [name for name in names if is_there is None or not is_there(name)]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "manifest": {"type": "path", "required": True},
            "kind": {
                "type": "str",
                "choices": ["path", "user", "group", "package", "image", "unit"],
                "required": True,
            },
            "names": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["record", "query", "forget"], "default": "record"},
        },
        supports_check_mode=True,
    )
    kind, names, state = (module.params[key] for key in ("kind", "names", "state"))
    manifest = Manifest(Path(module.params["manifest"]))
    try:
        owned = manifest.owned(kind)
        if state == "query":
            module.exit_json(changed=False, names=owned)
        if state == "record":
            concerned = [name for name in absent(kind, names) if name not in owned]
            act, line = manifest.own, "owned"
        else:
            concerned = [name for name in names if name in owned]
            act, line = manifest.forget, "no longer owned"
        if concerned and not module.check_mode:
            act(kind, *concerned)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    text = "".join(f"{line}: {kind} {name}\n" for name in concerned)
    module.exit_json(changed=bool(concerned), names=concerned, diff={"before": "", "after": text})


if __name__ == "__main__":
    main()
