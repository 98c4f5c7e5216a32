#!/usr/bin/python
"""Ansible module: stop a Docker that Roost brought and remove what it did to the network."""

from __future__ import annotations

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.ops.docker_traces import docker_traces, remove_docker_traces
from roost.ops.errors import RoostError, user_message
from roost.ops.ownership import Manifest
from roost.ops.run import run

DOCUMENTATION = r"""
module: roost_docker_traces
short_description: Remove Docker's bridge and packet rules, if Docker is ours
description:
  - Stops Docker and removes its bridge and its packet rules, only if the manifest says that Roost brought the package.
options:
  manifest:
    description: The ownership manifest.
    type: path
    required: true
  package:
    description: The package that brought Docker.
    type: str
    required: true
author: Roost developers
"""

EXAMPLES = r"""
- name: Take away what Docker did to the network
  roost_docker_traces:
    manifest: /var/lib/roost/manifest
    package: docker.io
"""

RETURN = r"""
traces:
  description: What was found.
  type: list
  returned: always
"""

SYSTEMD = Path("/run/systemd/system")
UNITS = ("docker.socket", "docker.service", "containerd.service")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "manifest": {"type": "path", "required": True},
            "package": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["package"] not in Manifest(Path(module.params["manifest"])).owned("package"):
            module.exit_json(changed=False, traces=[])
        if SYSTEMD.is_dir() and not module.check_mode and shutil.which("dockerd"):
            run(["systemctl", "stop", *UNITS])
        traces = docker_traces()
        if traces and not module.check_mode:
            remove_docker_traces()
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(traces), traces=traces)


if __name__ == "__main__":
    main()
