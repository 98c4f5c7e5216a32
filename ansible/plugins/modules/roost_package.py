#!/usr/bin/python
"""Ansible module: Debian packages, with a note of what was not there before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from roost.ops import packages
from roost.ops.dpkg import installed, on_disk
from roost.ops.errors import RoostError, user_message
from roost.ops.offline import OfflineBundle
from roost.ops.ownership import Manifest

DOCUMENTATION = r"""
module: roost_package
short_description: Install Debian packages, remove those that are ours
description:
  - Installs what is missing, without recommendations, and records everything new in the ownership manifest first.
  - C(state=absent) purges only what the manifest owns, and only if nothing else would go with it.
options:
  names:
    description: Packages. With C(state=absent), empty means all that are ours.
    type: list
    elements: str
    default: []
  state:
    description: Whether they are there.
    type: str
    choices: [present, absent]
    default: present
  manifest:
    description: The ownership manifest's file.
    type: path
    required: true
  cache_dir:
    description: Folder where downloaded packages are kept for the next machine or the next run; empty for none.
    type: str
    default: ""
  offline_dir:
    description: Folder made by C(roost bundle); with it nothing is fetched from a network.
    type: str
    default: ""
  extra_ca_bundle:
    description: PEM file with the CA of https mirrors.
    type: str
    default: ""
  start_services:
    description: Whether services that packages bring are started at their installation.
    type: bool
    default: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Install nftables
  roost_package:
    names: [nftables]
    manifest: /var/lib/roost/manifest
"""

RETURN = r"""
names:
  description: Packages that were installed or removed, or would be, those they bring along included.
  type: list
  returned: always
owned:
  description: Those of the packages that were asked for which Roost brought, now or in a run before.
  type: list
  returned: with C(state=present)
kept:
  description: Packages of ours that stay because others need them now.
  type: list
  returned: with C(state=absent)
"""


@contextlib.contextmanager
def sources(params: dict[str, Any]) -> Iterator[packages.Apt]:
    """Yield apt, looking where the parameters say."""
    extra_ca = Path(params["extra_ca_bundle"]) if params["extra_ca_bundle"] else None
    with contextlib.ExitStack() as stack:
        options: list[str] = []
        if params["offline_dir"]:
            options = stack.enter_context(packages.offline_source(OfflineBundle(Path(params["offline_dir"]))))
        elif params["cache_dir"]:
            options = stack.enter_context(packages.kept_archives(Path(params["cache_dir"])))
        apt = packages.Apt(extra_ca=extra_ca, options=options)
        if params["offline_dir"]:
            apt.update()
        yield apt


def present(module: AnsibleModule, manifest: Manifest) -> None:
    """Install what is missing."""
    names = module.params["names"]
    missing = sorted(set(names) - installed(names))
    if not missing:
        module.exit_json(changed=False, names=[], owned=owned(names, manifest))
    if module.check_mode:
        report(module, would_install(missing), "installed", owned=sorted({*missing, *owned(names, manifest)}))
    with contextlib.ExitStack() as stack:
        apt = stack.enter_context(sources(module.params))
        if not module.params["start_services"]:
            stack.enter_context(packages.services_kept_from_starting(manifest))
        new = packages.install(apt, missing, manifest)
    report(module, new, "installed", owned=owned(names, manifest))


def owned(names: list[str], manifest: Manifest) -> list[str]:
    """Return those of the packages that are ours."""
    return sorted(set(names) & set(manifest.owned("package")))


def would_install(missing: list[str]) -> list[str]:
    """Say what installing would bring; without package lists only the names themselves are known."""
    try:
        return packages.plan_install(packages.Apt(), missing, may_update=False).new
    except RoostError:
        return missing


def absent(module: AnsibleModule, manifest: Manifest) -> None:
    """Remove what is ours and needed by nobody else."""
    owned = manifest.owned("package")
    names = [name for name in owned if name in module.params["names"] or not module.params["names"]]
    there = on_disk(names)
    apt = packages.Apt()
    if not module.check_mode and there:
        packages.finish_interrupted()
    gone = packages.removable(apt, names)
    if gone and not module.check_mode:
        apt.purge(gone)
    if not module.check_mode:
        manifest.forget("package", *(name for name in names if name not in there or name in gone))
    report(module, gone, "removed", kept=sorted(there - set(gone)))


def report(module: AnsibleModule, names: list[str], what: str, **more: object) -> None:
    """End with what changed."""
    lines = "".join(f"{what}: {name}\n" for name in names)
    module.exit_json(changed=bool(names), names=names, diff={"before": "", "after": lines}, **more)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "manifest": {"type": "path", "required": True},
            "cache_dir": {"type": "str", "default": ""},
            "offline_dir": {"type": "str", "default": ""},
            "extra_ca_bundle": {"type": "str", "default": ""},
            "start_services": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    manifest = Manifest(Path(module.params["manifest"]))
    try:
        (present if module.params["state"] == "present" else absent)(module, manifest)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))


if __name__ == "__main__":
    main()
