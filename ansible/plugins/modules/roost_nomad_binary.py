#!/usr/bin/python
"""Ansible module: the Nomad program, verified and installed whole, from the first source that can deliver it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from roost.fleet.nomad_binary import NomadRequest, ensure_nomad, preview_nomad
from roost.fleet.nomad_sources import cache_names
from roost.fleet.sharing import peer_of
from roost.ops.errors import RoostError

DOCUMENTATION = r"""
module: roost_nomad_binary
short_description: Install the Nomad program
description:
  - Installs one version of Nomad as I(install_dir)/nomad/VERSION/nomad and lets I(install_dir)/bin/nomad name it.
  - Versions that were installed before stay.
  - Does nothing when that version is installed and linked; then the sources are not asked.
options:
  version:
    description: The exact version, for example 1.11.3.
    type: str
    required: true
  sources:
    description:
      - Where it may come from, in the order in which they are tried.
      - C(present) is a program of that version on the machine, C(offline) the folder I(offline_dir), C(cache) what an
        earlier run kept in I(cache_dir), C(release) the official release with its signature checked, C(source) a
        build from sources pinned by go.sum.
    type: list
    elements: str
    choices: [present, offline, cache, release, source]
    default: [present, offline, cache, release, source]
  install_dir:
    description: Folder to install in.
    type: path
    required: true
  cache_dir:
    description: Folder that keeps what was downloaded or built; it may be shared and may be deleted.
    type: path
    required: true
  offline_dir:
    description: Folder made by C(roost bundle); empty when there is none.
    type: str
    default: ""
  extra_ca_bundle:
    description: PEM file with the CA of a proxy, trusted in addition; empty when there is none.
    type: str
    default: ""
  release_url:
    description: Address of the release server's folder of Nomad.
    type: str
    required: true
  release_key_url:
    description: Address of the vendor's signing key.
    type: str
    required: true
  release_key_fingerprint:
    description: Fingerprint of the primary key that must have signed a release, 40 hex digits.
    type: str
    required: true
  build_dir:
    description: Folder of the go.mod and go.sum that the source build uses.
    type: path
    required: true
  go_requirements:
    description: Locked requirements file of the Go toolchain; empty for the one in the release of I(build_dir).
    type: str
    default: ""
  peer:
    description: Another machine of the fleet that is asked first, https://HOST:PORT; empty for none.
    type: str
    default: ""
  tls_dir:
    description: Folder with ca.pem, node.pem and node-key.pem, for I(peer).
    type: str
    default: ""
author: Roost developers
"""

EXAMPLES = r"""
- name: Install Nomad
  roost_nomad_binary:
    version: "{{ nomad_version }}"
    sources: "{{ nomad_sources }}"
    install_dir: "{{ roost_install_dir }}"
    cache_dir: "{{ roost_cache_dir }}"
    release_url: "{{ nomad_release_url }}"
    release_key_url: "{{ nomad_release_key_url }}"
    release_key_fingerprint: "{{ nomad_release_key_fingerprint }}"
    build_dir: "{{ roost_release_dir }}/nomad/build"
"""

RETURN = r"""
path:
  description: The installed program.
  type: str
  returned: always
version:
  description: Its version.
  type: str
  returned: always
source:
  description: The source it came from when it was installed; empty in check mode as long as it is not installed.
  type: str
  returned: always
sha256:
  description: Its SHA-256, 64 hex digits; empty in check mode as long as it is not installed.
  type: str
  returned: always
refusals:
  description: Sources that were asked before and did not deliver, each with reason and fix.
  type: list
  elements: dict
  returned: when it was installed
progress:
  description: What was done, line by line.
  type: list
  elements: str
  returned: when it was installed
"""


def linked(request: NomadRequest) -> str:
    """Return what the link names, as a line; empty when there is none."""
    try:
        return f"{request.link} -> {request.link.readlink()}\n"
    except OSError:
        return ""


def preview(module: AnsibleModule, request: NomadRequest) -> None:
    """Report what would be done."""
    would = preview_nomad(request)
    before = linked(request)
    if not would.changed:
        module.exit_json(**result(request))
    module.exit_json(
        changed=True,
        path=str(request.program),
        version=request.version,
        source="",
        sha256="",
        msg=would.words,
        diff={"before": before, "after": f"{request.link} -> {request.program} ({would.words})\n"},
    )


def result(request: NomadRequest) -> dict[str, object]:
    """Install it and return the module's result."""
    before = linked(request)
    progress: list[str] = []
    binary = ensure_nomad(request, progress.append)
    return {
        "changed": binary.changed,
        "path": str(binary.path),
        "version": binary.version,
        "source": binary.source,
        "sha256": binary.sha256,
        "refusals": [asdict(refusal) for refusal in binary.refusals],
        "progress": progress,
        "diff": {"before": before, "after": linked(request)},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "sources": {
                "type": "list",
                "elements": "str",
                "choices": ["present", "offline", "cache", "release", "source"],
                "default": ["present", "offline", "cache", "release", "source"],
            },
            "install_dir": {"type": "path", "required": True},
            "cache_dir": {"type": "path", "required": True},
            "offline_dir": {"type": "str", "default": ""},
            "extra_ca_bundle": {"type": "str", "default": ""},
            "release_url": {"type": "str", "required": True},
            "release_key_url": {"type": "str", "required": True, "no_log": False},
            "release_key_fingerprint": {"type": "str", "required": True, "no_log": False},
            "build_dir": {"type": "path", "required": True},
            "go_requirements": {"type": "str", "default": "", "no_log": False},
            "peer": {"type": "str", "default": ""},
            "tls_dir": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    build_dir = Path(params["build_dir"])
    try:
        request = NomadRequest(
            version=params["version"],
            sources=tuple(params["sources"]),
            install_dir=Path(params["install_dir"]),
            cache_dir=Path(params["cache_dir"]),
            build_dir=build_dir,
            go_requirements=Path(params["go_requirements"] or build_dir.parents[1] / "requirements" / "go.txt"),
            release_url=params["release_url"],
            release_key_url=params["release_key_url"],
            release_key_fingerprint=params["release_key_fingerprint"],
            offline_dir=Path(params["offline_dir"]) if params["offline_dir"] else None,
            extra_ca_bundle=Path(params["extra_ca_bundle"]) if params["extra_ca_bundle"] else None,
        )
        if module.check_mode:
            preview(module, request)
        if (other := peer_of(params)) and preview_nomad(request).changed:
            other.bring(request.cache_dir, cache_names(request))
        module.exit_json(**result(request))
    except (RoostError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
