"""A real Nomad on loopback, one node, with mutual TLS and access control as the product sets them up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass
class Agent:
    """Nomad as server and client in one process; what it knows outlives `stop`."""

    folder: Path
    client: NomadClient
    anonymous: NomadClient
    token: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """Return the folder of what the server knows."""
        return self.folder / "data" / "server"

    def start(self, *, set_up: bool = True) -> bool:
        """Start it, and set up its access control; return whether that had to be done. Without `set_up` only start it.

        Raises:
            RoostError: it has no leader, or its node is not ready, within a minute.
        """
        argv = [str(nomad_program(self.folder / "program")), "agent", "-config", str(self.folder / "nomad.hcl")]
        with (self.folder / "nomad.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        wait_for_leader(self.client, READY_S)
        if not set_up:
            return False
        made = ensure_acl(self.client, self.anonymous, self.token)
        wait_for_node(self.client, READY_S, "raw_exec")
        return made

    def stop(self) -> None:
        """End it in order."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None


@contextmanager
def nomad_agent(folder: Path) -> Iterator[Agent]:
    """Run Nomad until the context ends. Its jobs must be stopped before."""
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
    (folder / "nomad.hcl").write_text(CONFIGURATION.format(data=folder / "data", tls=tls, **ports))
    token = str(uuid.uuid4())
    address = f"https://127.0.0.1:{ports['http']}"
    paths = (tls / "ca.pem", tls / "cli.pem", tls / "cli-key.pem")
    client, anonymous = NomadClient(NomadAccess(address, *paths, token)), NomadClient(NomadAccess(address, *paths))
    agent = Agent(folder, client, anonymous, token)
    try:
        agent.start()
        yield agent
    finally:
        agent.stop()
        for mounted in reversed(_mounts_below(folder)):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(folder / "program", ignore_errors=True)


@contextmanager
def nomad_server(folder: Path) -> Iterator[NomadClient]:
    """Run Nomad until the context ends; yields the operator's client. Its jobs must be stopped before."""
    with nomad_agent(folder) as agent:
        yield agent.client


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(point for point in points if point.startswith(f"{folder}/"))
