"""A gateway that is replaced stays on its node where others are free, too: its address is the one that clients know."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from roost.fleet.agent_jobs import AgentChoice, gateway_job
from roost.fleet.job_text import render_job
from roost.fleet.jobs import Identity
from tests.support.gateway import REPOSITORY
from tests.support.net import free_port, wait_until
from tests.support.nomad import DevNomad, dev_nomad, nomad_program
from tests.support.processes import end

NODES = 3
REPLACEMENTS = 5
SOON_S = 60.0
NODE = """
data_dir = "{folder}/{name}"
name = "{name}"
bind_addr = "127.0.0.1"
ports {{ http = {http} }}
advertise {{
  http = "127.0.0.1"
  rpc = "127.0.0.1"
  serf = "127.0.0.1"
}}
plugin "raw_exec" {{ config {{ enabled = true }} }}
client {{
  enabled = true
  servers = ["127.0.0.1:{rpc}"]
  host_network "loopback" {{ cidr = "127.0.0.0/8" }}
  options = {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
    "driver.allowlist" = "raw_exec"
  }}
}}
acl {{ enabled = true }}
"""


@contextmanager
def node(nomad: DevNomad, folder: Path, name: str) -> Iterator[None]:
    """Have a further node, which alone with its like has the network that gateways ask for."""
    rpc = nomad.ask("GET", "agent/self")["config"]["Ports"]["RPC"]
    config = folder / f"{name}.hcl"
    config.write_text(NODE.format(folder=folder, name=name, http=free_port(), rpc=rpc))
    with (folder / f"{name}.log").open("wb") as log:
        argv = [str(nomad_program(folder / "program")), "agent", "-config", str(config)]
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        end(process, SOON_S)


def ready(nomad: DevNomad, names: list[str]) -> bool:
    """Say whether all of these nodes may have work."""
    found = {entry["Name"]: entry for entry in nomad.ask("GET", "nodes")}
    return all(
        name in found and found[name]["Status"] == "ready" and found[name]["Drivers"]["raw_exec"]["Healthy"]
        for name in names
    )


def states(nomad: DevNomad) -> list[str]:
    """Return the state of each of the job's allocations."""
    return [allocation["ClientStatus"] for allocation in nomad.allocations("roost-gateway")]


def version(number: int, port: int, listen_port: int) -> str:
    """Return a version of the product's own job of one further gateway; what it runs only waits."""
    choice = AgentChoice(
        "raw_exec", "127.0.0.1", port, 32, "info", listen=f"192.0.2.1:{listen_port}", replicas=1,
        env={"NUMBER": str(number)},
    )  # fmt: skip
    job = gateway_job(choice, Identity("", "", os.getuid(), os.getgid()), datacenter="dc1")
    job = dataclasses.replace(job, command="/bin/sleep", args=["1000"], secret_files=[], cpu_mhz=20)
    return render_job(REPOSITORY / "nomad", job)


def test_a_gateway_that_is_replaced_stays_where_it_is() -> None:
    names = [f"further-{number}" for number in range(NODES)]
    with (
        tempfile.TemporaryDirectory(prefix="n", ignore_cleanup_errors=True) as short,
        dev_nomad(Path(short)) as nomad,
        ExitStack() as nodes,
    ):
        for name in names:
            nodes.enter_context(node(nomad, Path(short), name))
        wait_until(lambda: ready(nomad, names), SOON_S, "the nodes", 0.2)
        port, listen_port = free_port(), free_port()
        stood: list[str] = []
        for number in range(REPLACEMENTS + 1):
            nomad.run(version(number, port, listen_port))

            def runs(number: int = number) -> bool:
                now = [a for a in nomad.allocations("roost-gateway") if a["JobVersion"] == number]
                return bool(now) and now[-1]["ClientStatus"] == "running"

            wait_until(runs, SOON_S, f"version {number} to run", 0.1)
            stood.append(nomad.allocations("roost-gateway")[-1]["NodeName"])
        nomad.ask("DELETE", "job/roost-gateway")
        wait_until(lambda: set(states(nomad)) == {"complete"}, SOON_S, "it to end", 0.2)
    assert stood == stood[:1] * (REPLACEMENTS + 1)
