#!/usr/bin/python
"""Ansible module: have this machine give what it made to others, until nobody asks any more."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: roost_share
short_description: Give images, programs and models to other machines for a while
description:
  - Starts C(roost.fleet.sharing) in the background unless it answers already. It ends by itself; nothing stays.
options:
  address:
    description: Address of this machine in the fleet.
    type: str
    required: true
  port:
    description: Its port.
    type: int
    required: true
  cache_dir:
    description: Folder of downloads and builds.
    type: path
    required: true
  models_dir:
    description: Folder of the model files.
    type: path
    required: true
  tls_dir:
    description: Folder with ca.pem, node.pem and node-key.pem.
    type: path
    required: true
  log:
    description: File for what it says.
    type: path
    required: true
  idle:
    description: Seconds without a request after which it ends.
    type: int
    required: true
  timeout:
    description: Seconds until it must answer.
    type: int
    default: 30
author: Roost developers
"""

EXAMPLES = r"""
- name: Share
  roost_share:
    address: 192.0.2.7
    port: 8465
    cache_dir: /var/cache/roost
    models_dir: /var/lib/roost/models
    tls_dir: /etc/roost/tls
    log: /var/log/roost/share.log
    idle: 1200
"""

RETURN = r"""
pid:
  description: Process that was started; 0 if there was one already.
  type: int
  returned: always
"""


def answers(address: str, port: int) -> bool:
    """Say whether somebody listens there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Run the module."""
    paths = {name: {"type": "path", "required": True} for name in ("cache_dir", "models_dir", "tls_dir", "log")}
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "idle": {"type": "int", "required": True},
            "timeout": {"type": "int", "default": 30},
            **paths,
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode or answers(params["address"], params["port"]):
        module.exit_json(changed=False, pid=0)
    words = [sys.executable, "-P", "-m", "roost.fleet.sharing", "--address", params["address"]]
    words += ["--port", str(params["port"]), "--cache-dir", params["cache_dir"], "--models-dir", params["models_dir"]]
    words += ["--tls-dir", params["tls_dir"], "--idle", str(params["idle"])]
    with Path(params["log"]).open("ab") as log:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + params["timeout"]
    while not answers(params["address"], params["port"]):
        if child.poll() is not None or time.monotonic() > deadline:
            child.kill()
            module.fail_json(msg=f"What the machine made cannot be given to others. Fix: See {params['log']}.")
        time.sleep(0.1)
    module.exit_json(changed=False, pid=child.pid)


if __name__ == "__main__":
    main()
