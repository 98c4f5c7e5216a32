#!/usr/bin/python
"""Ansible module: a service of ours, by systemd or by an init script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from roost.ops.errors import RoostError, user_message
from roost.ops.ownership import Manifest
from roost.ops.services import STAMPS, Host, ensure, init_of, remove
from roost.ops.units import Places, Service

DOCUMENTATION = r"""
module: roost_service
short_description: Run a service, by systemd or by SysV init
description:
  - Writes the unit or the init script, enables and starts it. Without systemd, a supervisor of ours starts the daemon
    again whenever it ends.
  - Restarted only if its unit, its program or a file of I(restart_on) changed since it was started. A C(oneshot)
    runs again then, without I(stop_command) before it.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  state:
    description: C(absent) stops and removes it, if the manifest says that it is ours.
    type: str
    choices: [present, absent]
    default: present
  manifest:
    description: The ownership manifest's file; stamps of what was started lie in the folder C(services) beside it.
    type: path
    required: true
  description:
    description: What it is, in a few words.
    type: str
    default: ""
  type:
    description: A C(daemon) stays in the foreground; a C(oneshot) puts something in place.
    type: str
    choices: [daemon, oneshot]
    default: daemon
  command:
    description: Program and arguments.
    type: list
    elements: str
    default: []
  stop_command:
    description: What takes away what a C(oneshot) put in place.
    type: list
    elements: str
    default: []
  check_command:
    description: Exits 0 while what a C(oneshot) put in place is there, or while a daemon is healthy.
    type: list
    elements: str
    default: []
  restart_on:
    description: Files whose content it reads at its start.
    type: list
    elements: str
    default: []
  changed_before:
    description:
      - Whether earlier tasks changed what it is started with. Counts in check mode only, where those files are not
        written; else their content tells.
    type: bool
    default: false
  pauses:
    description: Services of ours that do not run while it is restarted.
    type: list
    elements: str
    default: []
  requires:
    description: Files without which it does not start; empty for those of I(restart_on).
    type: list
    elements: str
    default: []
  after:
    description: Services that are started before it, where they exist.
    type: list
    elements: str
    default: []
  before:
    description: Services that are started after it, where they exist.
    type: list
    elements: str
    default: []
  before_network:
    description: Whether a C(oneshot) is in place before any network is (systemd).
    type: bool
    default: false
  user:
    description: User it runs as.
    type: str
    default: root
  environment:
    description: Environment variables.
    type: dict
    default: {}
  secret_environment:
    description: Further ones whose values are told nowhere; the unit or script that has them is root's alone.
    type: dict
    default: {}
  open_files:
    description: Limit of open files; 0 leaves it.
    type: int
    default: 0
  oom_score_adjust:
    description: How unwilling the kernel is to end it when memory is short, from -1000 to 1000.
    type: int
    default: 0
  kill_children:
    description: Whether what the daemon started is stopped with it (systemd).
    type: bool
    default: false
  mount_cgroups:
    description: Whether the cgroup file systems are mounted where nobody did (without systemd).
    type: bool
    default: false
  stop_timeout:
    description: Seconds it may take to stop.
    type: int
    default: 60
  confined:
    description: Whether all is taken from it that it does not name here (systemd).
    type: bool
    default: false
  writable:
    description: Folders that it may write when it is confined.
    type: list
    elements: str
    default: []
  capabilities:
    description: Capabilities that it keeps when it is confined.
    type: list
    elements: str
    default: []
  install_dir:
    description: Folder of the program; the supervisor is put into its folder C(libexec).
    type: path
    default: /opt/roost
  run_dir:
    description: Folder of the pidfiles (without systemd).
    type: path
    default: /run/roost
  log_dir:
    description: Folder of the logs (without systemd).
    type: path
    default: /var/log/roost
author: Roost developers
"""

EXAMPLES = r"""
- name: Run Nomad
  roost_service:
    name: roost-nomad
    manifest: /var/lib/roost/manifest
    description: Nomad for Roost
    command: [/opt/roost/bin/nomad, agent, -config, /etc/roost/nomad.d]
    restart_on: [/etc/roost/nomad.d/nomad.hcl]
"""

RETURN = r"""
done:
  description: What was done, or would be.
  type: list
  returned: always
"""


def service_of(params: dict[str, Any]) -> Service:
    """Return the service that the parameters describe."""
    return Service(
        name=params["name"],
        description=params["description"] or params["name"],
        command=tuple(params["command"]),
        type=params["type"],
        stop_command=tuple(params["stop_command"]),
        check_command=tuple(params["check_command"]),
        user=params["user"],
        environment={
            str(key): str(value) for key, value in (params["environment"] | params["secret_environment"]).items()
        },
        private=bool(params["secret_environment"]),
        requires=tuple(params["requires"] or params["restart_on"]),
        after=tuple(params["after"]),
        before=tuple(params["before"]),
        before_network=params["before_network"],
        open_files=params["open_files"],
        oom_score_adjust=params["oom_score_adjust"],
        kill_children=params["kill_children"],
        mount_cgroups=params["mount_cgroups"],
        stop_timeout_s=params["stop_timeout"],
        confined=params["confined"],
        writable=tuple(params["writable"]),
        capabilities=tuple(params["capabilities"]),
    )


def main() -> None:
    """Run the module."""
    words = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "manifest": {"type": "path", "required": True},
            "description": {"type": "str", "default": ""},
            "type": {"type": "str", "choices": ["daemon", "oneshot"], "default": "daemon"},
            "command": words,
            "stop_command": words,
            "check_command": words,
            "restart_on": words,
            "changed_before": {"type": "bool", "default": False},
            "pauses": words,
            "requires": words,
            "after": words,
            "before": words,
            "before_network": {"type": "bool", "default": False},
            "user": {"type": "str", "default": "root"},
            "environment": {"type": "dict", "default": {}},
            "secret_environment": {"type": "dict", "default": {}, "no_log": True},
            "open_files": {"type": "int", "default": 0},
            "oom_score_adjust": {"type": "int", "default": 0},
            "kill_children": {"type": "bool", "default": False},
            "mount_cgroups": {"type": "bool", "default": False},
            "stop_timeout": {"type": "int", "default": 60},
            "confined": {"type": "bool", "default": False},
            "writable": words,
            "capabilities": words,
            "install_dir": {"type": "path", "default": "/opt/roost"},
            "run_dir": {"type": "path", "default": "/run/roost"},
            "log_dir": {"type": "path", "default": "/var/log/roost"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["state"] == "present" and not params["command"]:
        module.fail_json(msg="A service needs a command.")
    service = service_of(params)
    places = Places(install_dir=params["install_dir"], run_dir=params["run_dir"], log_dir=params["log_dir"])
    manifest = Path(params["manifest"])
    host = Host(init_of(service, places), Manifest(manifest), manifest.parent / STAMPS)
    try:
        if params["state"] == "present":
            change = ensure(
                host,
                service,
                params["restart_on"],
                dry_run=module.check_mode,
                changed_before=params["changed_before"],
                pauses=params["pauses"],
            )
        else:
            change = remove(host, service, dry_run=module.check_mode)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(change.done), done=change.done, diff={"before": change.before, "after": change.after})


if __name__ == "__main__":
    main()
