"""What modules that speak to Nomad say of their options; their types are `NOMAD_OPTIONS` in `roost.fleet.nomad_api`."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of modules that speak to Nomad."""

    DOCUMENTATION = r"""
options:
  address:
    description: Address of Nomad's HTTP API, https://HOST:PORT.
    type: str
    required: true
  tls_dir:
    description: Folder with ca.pem, cli.pem and cli-key.pem.
    type: path
    required: true
  token:
    description: The operator's token; empty before there is one.
    type: str
    required: true
"""
