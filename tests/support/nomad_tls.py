"""A real Nomad on loopback, one node, with mutual TLS and access control as the product sets them up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.fleet.nomad_api import NomadAccess, NomadClient
from roost.fleet.nomad_setup import ensure_acl, wait_for_leader, wait_for_node
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.net import free_port
from tests.support.nomad import nomad_program

READY_S = 60.0
CONFIGURATION = """
data_dir = "{data}"
bind_addr = "127.0.0.1"
disable_update_check = true
advertise {{
  http = "127.0.0.1"
  rpc = "127.0.0.1"
  serf = "127.0.0.1"
}}
ports {{
  http = {http}
  rpc = {rpc}
  serf = {serf}
}}
server {{
  enabled = true
  bootstrap_expect = 1
  raft_multiplier = 1
}}
client {{
  enabled = true
  host_network "loopback" {{
    cidr = "127.0.0.0/8"
  }}
  options = {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
    "driver.allowlist" = "raw_exec"
  }}
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
acl {{
  enabled = true
}}
tls {{
  http = true
  rpc = true
  ca_file = "{tls}/ca.pem"
  cert_file = "{tls}/node.pem"
  key_file = "{tls}/node-key.pem"
  verify_server_hostname = true
  verify_https_client = true
}}
consul {{
  auto_advertise = false
  server_auto_join = false
  client_auto_join = false
}}
"""


@contextmanager
def nomad_server(folder: Path) -> Iterator[NomadClient]:
    """Run Nomad until the context ends; yields the operator's client. Its jobs must be stopped before."""
    tls = folder / "tls"
    tls.mkdir()
    ensure_pki(
        tls,
        [
            LeafSpec("node", ("server.global.nomad", "client.global.nomad", "localhost", "127.0.0.1")),
            LeafSpec("cli", ("cli.global.nomad",)),
        ],
    )
    ports = {name: free_port() for name in ("http", "rpc", "serf")}
    configuration = folder / "nomad.hcl"
    configuration.write_text(CONFIGURATION.format(data=folder / "data", tls=tls, **ports))
    token = str(uuid.uuid4())
    address = f"https://127.0.0.1:{ports['http']}"
    paths = (tls / "ca.pem", tls / "cli.pem", tls / "cli-key.pem")
    client = NomadClient(NomadAccess(address, *paths, token))
    with (folder / "nomad.log").open("wb") as log:
        process = subprocess.Popen(
            [nomad_program(folder / "program"), "agent", "-config", configuration], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for_leader(client, READY_S)
        ensure_acl(client, NomadClient(NomadAccess(address, *paths)), token)
        wait_for_node(client, READY_S, "raw_exec")
        yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        for mounted in reversed(_mounts_below(folder)):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(folder / "program", ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(point for point in points if point.startswith(f"{folder}/"))
