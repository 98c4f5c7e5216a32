#!/usr/bin/python
"""Ansible module: the engine and the agent, as folders or as images, named by the hash of what went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from pydantic import ValidationError

from roost.fleet.artifacts import ensure
from roost.fleet.artifacts.apt import architecture
from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.gc import remove_images
from roost.fleet.artifacts.peer import bring
from roost.fleet.artifacts.plan import Choices
from roost.fleet.artifacts.registry import HttpsRegistry, push
from roost.fleet.sharing import peer_of
from roost.ops.errors import RoostError, user_message

DOCUMENTATION = r"""
module: roost_artifacts
short_description: Make what the jobs run from
description:
  - Makes the engine (llama.cpp from Debian packages, or llama-cpp-python, compiled here) and the agent (its Python
    packages and Roost's own code), as folders for C(runtime=local) or as images for C(runtime=docker).
  - Each is named by a hash of its inputs, resolved package versions included, so what is there is never made again.
  - Package versions are resolved once and stay until I(update).
options:
  state:
    description: C(present) makes them; C(absent) removes every image of ours (the trees are folders like others).
    type: str
    choices: [present, absent]
    default: present
  runtime:
    description: Images for containers, or folders for plain processes.
    type: str
    choices: [docker, local]
    required: true
  release_dir:
    description: Folder of the release; its app, requirements and images folders are read.
    type: path
    required: true
  cache_dir:
    description: Folder of downloads and finished images; safe to delete, may be shared between machines.
    type: path
    required: true
  artifacts_dir:
    description: Folder of the trees, and of the decisions made (resolved.json, history.json).
    type: path
    required: true
  offline_dir:
    description: Folder made by C(roost bundle); with it nothing is fetched from a network.
    type: str
    default: ""
  extra_ca_bundle:
    description: PEM file trusted while fetching on the host; it enters no image.
    type: str
    default: ""
  base_suite:
    description: Debian suite of the base image.
    type: str
    default: bookworm
  base_packages:
    description: Packages of the base image beside a minimal Debian.
    type: list
    elements: str
    default: [ca-certificates, python3-minimal, libpython3-stdlib]
  engine:
    description: C(llama.cpp) of Debian, or C(llama-cpp-python), which is compiled; only with C(runtime=local).
    type: str
    choices: [llama.cpp, llama-cpp-python]
    default: llama.cpp
  engine_suite:
    description: Debian suite of the engine.
    type: str
    default: forky
  engine_packages:
    description: Packages of the engine, backends included.
    type: list
    elements: str
    default: [llama.cpp-tools, llama.cpp-tools-extra]
  engine_gpu_packages:
    description: More packages of the engine for each of I(engine_gpus).
    type: dict
    default: {}
  engine_gpus:
    description: What the engine computes on beside processors, vendors of graphics processors or C(RPC).
    type: list
    elements: str
    default: []
  monitoring_suite:
    description: Debian suite of Prometheus' packages.
    type: str
    default: trixie
  monitoring_packages:
    description: Packages of Prometheus; none where it is not wanted.
    type: list
    elements: str
    default: []
  web_search_image:
    description: SearXNG's image, by digest; empty where it is not wanted.
    type: str
    default: ""
  mirror:
    description: Debian mirror; empty for the one of the host's apt sources, else debootstrap's default.
    type: str
    default: ""
  python_version:
    description: Python that will run the agent's folder (C(runtime=local)), e.g. 3.11; empty for the one running this.
    type: str
    default: ""
  update:
    description: Resolve package versions anew and make what changed by that.
    type: bool
    default: false
  keep_previous:
    description: How many older versions of each are kept.
    type: int
    default: 1
  peer:
    description: Another machine of the fleet that is asked first, https://HOST:PORT; empty for none.
    type: str
    default: ""
  registry:
    description: The fleet's registry, HOST:PORT; empty for none. Where I(peer) is empty images are pushed to it.
    type: str
    default: ""
  digests:
    description: Digests of the images in the registry by reference; what is in it is pulled by its digest.
    type: dict
    default: {}
  tls_dir:
    description: Folder with ca.pem, node.pem and node-key.pem, for I(peer) and I(registry).
    type: str
    default: ""
author: Roost developers
"""

EXAMPLES = r"""
- name: Make images
  roost_artifacts:
    runtime: docker
    release_dir: /opt/roost/current
    cache_dir: /var/cache/roost
    artifacts_dir: /var/lib/roost/artifacts
"""

RETURN = r"""
engine_tree:
  description: Folder of the engine; empty when it is an image. Its name ends in C(unresolved) in a check before the
    first run, when package versions are not known yet.
  type: str
  returned: always
agent_tree:
  description: Folder of the agent; empty when it is an image.
  type: str
  returned: always
monitoring_tree:
  description: Folder of Prometheus; empty when it is an image or not wanted.
  type: str
  returned: always
images:
  description: References of the images C(agent), C(llama_server), C(base), C(monitoring), C(search); empty
    for C(runtime=local).
  type: dict
  returned: always
digests:
  description: Digests of the images in the registry, by reference; empty where there is none.
  type: dict
  returned: always
built:
  description: What was made or loaded, or would be.
  type: list
  returned: always
removed:
  description: What was removed because it was older than the previous one and not in use.
  type: list
  returned: always
steps:
  description: What was done, in words.
  type: list
  returned: always
"""


NOT_CHOICES = {"update", "state", "engine", "peer", "registry", "digests", "tls_dir"}


def choices_of(params: dict[str, Any]) -> Choices:
    """Return the module's parameters as the choices artifacts are made by."""
    values = {key: value for key, value in params.items() if key not in NOT_CHOICES}
    values["engine_name"] = params["engine"]
    for name in ("offline_dir", "extra_ca_bundle"):
        values[name] = values[name] or None
    return Choices.model_validate({**values, "arch": architecture()})


def text(lines: list[str]) -> str:
    """Return lines as the text of a diff."""
    return "".join(f"{line}\n" for line in lines)


def remove(module: AnsibleModule) -> None:
    """Remove our images."""
    try:
        removed = remove_images(Docker(), dry_run=module.check_mode)
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))
    module.exit_json(changed=bool(removed), removed=removed, diff={"before": text(removed), "after": ""})


def give(module: AnsibleModule, images: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Push images to the registry where this machine makes them for others; the digests, and what was pushed."""
    params = module.params
    if not params["registry"] or params["peer"] or module.check_mode:
        return {}, []
    tls = Path(params["tls_dir"])
    registry = HttpsRegistry(params["registry"], tls / "ca.pem", tls / "node.pem", tls / "node-key.pem")
    return push(Docker(), registry, sorted(images.values()))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "runtime": {"type": "str", "choices": ["docker", "local"], "required": True},
            "release_dir": {"type": "path", "required": True},
            "cache_dir": {"type": "path", "required": True},
            "artifacts_dir": {"type": "path", "required": True},
            "offline_dir": {"type": "str", "default": ""},
            "extra_ca_bundle": {"type": "str", "default": ""},
            "base_suite": {"type": "str", "default": "bookworm"},
            "base_packages": {
                "type": "list",
                "elements": "str",
                "default": ["ca-certificates", "python3-minimal", "libpython3-stdlib"],
            },
            "engine": {"type": "str", "choices": ["llama.cpp", "llama-cpp-python"], "default": "llama.cpp"},
            "engine_suite": {"type": "str", "default": "forky"},
            "engine_packages": {
                "type": "list",
                "elements": "str",
                "default": ["llama.cpp-tools", "llama.cpp-tools-extra"],
            },
            "engine_gpu_packages": {"type": "dict", "default": {}},
            "engine_gpus": {"type": "list", "elements": "str", "default": []},
            "monitoring_suite": {"type": "str", "default": "trixie"},
            "monitoring_packages": {"type": "list", "elements": "str", "default": []},
            "web_search_image": {"type": "str", "default": ""},
            "mirror": {"type": "str", "default": ""},
            "python_version": {"type": "str", "default": ""},
            "update": {"type": "bool", "default": False},
            "keep_previous": {"type": "int", "default": 1},
            "peer": {"type": "str", "default": ""},
            "registry": {"type": "str", "default": ""},
            "digests": {"type": "dict", "default": {}},
            "tls_dir": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    steps: list[str] = []
    if module.params["state"] == "absent":
        remove(module)
    try:
        workshop = ensure.Workshop(choices_of(module.params), Docker(), steps.append)
        if (other := peer_of(module.params)) and not module.check_mode and ensure.check(workshop).changed:
            bring(workshop, other, module.params["registry"], module.params["digests"])
        act = ensure.check if module.check_mode else ensure.ensure
        outcome = act(workshop, update=module.params["update"])
        digests, pushed = give(module, outcome.images)
    except (RoostError, ValidationError, OSError) as error:
        module.fail_json(msg=user_message(error), steps=steps)
    module.exit_json(
        changed=outcome.changed or bool(pushed),
        digests=digests,
        engine_tree=outcome.engine_tree,
        agent_tree=outcome.agent_tree,
        monitoring_tree=outcome.monitoring_tree,
        images=outcome.images,
        built=outcome.built,
        removed=outcome.removed,
        steps=steps,
        diff={
            "before": text(outcome.before),
            "after": text(outcome.after + [f"pushed: {reference}" for reference in pushed]),
        },
    )


if __name__ == "__main__":
    main()
