"""A real Nomad on loopback: server and client in one process that forgets everything, with its ACL on.

The program comes from the product's own sources and stays in the tests' cache.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from roost.fleet.nomad_binary import NomadRequest, ensure_nomad
from roost.fleet.nomad_setup import AGENT_POLICY
from tests.support.engine import REPOSITORY, cache_dir
from tests.support.net import free_port, wait_until
from tests.support.processes import end

Json = Any
START_TIMEOUT_S = 60.0
CONFIG = """
bind_addr = "127.0.0.1"
ports {{ http = {http}, rpc = {rpc}, serf = {serf} }}
plugin "raw_exec" {{ config {{ enabled = true }} }}
client {{
  options = {{ "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean" }}
  min_dynamic_port = {low}
  max_dynamic_port = {high}
}}
"""


def nomad_program(folder: Path) -> Path:
    """Return the program of the version that the product uses; gets it if it is not in the cache."""
    defaults = yaml.safe_load((REPOSITORY / "group_vars" / "all.yaml").read_text())
    request = NomadRequest(
        version=defaults["nomad_version"],
        sources=("present", "cache", "release", "source"),
        install_dir=folder,
        cache_dir=cache_dir(),
        build_dir=REPOSITORY / "nomad" / "build",
        go_requirements=REPOSITORY / "requirements" / "go.txt",
        release_url=defaults["nomad_release_url"],
        release_key_url=defaults["nomad_release_key_url"],
        release_key_fingerprint=defaults["nomad_release_key_fingerprint"],
    )
    return ensure_nomad(request).path


@dataclass
class DevNomad:
    """A running Nomad: its port, and the token that may do all."""

    port: int
    token: str = ""

    def ask(self, method: str, path: str, body: object = None) -> Json:
        """Send a request below `/v1/` and return the decoded answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"X-Nomad-Token": self.token}
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
            assert answer.status == 200, (method, path, answer.status, raw)
            return json.loads(raw) if raw else None
        finally:
            connection.close()

    def agent_token(self) -> str:
        """Return a token that may do what the agent may, and no more."""
        self.ask("PUT", "acl/policy/agent", {"Name": "agent", "Rules": AGENT_POLICY})
        made = self.ask("PUT", "acl/token", {"Name": "agent", "Type": "client", "Policies": ["agent"]})
        return str(made["SecretID"])

    def run(self, text: str) -> None:
        """Run a job from its text."""
        job = self.ask("PUT", "jobs/parse", {"JobHCL": text, "Canonicalize": True})
        self.ask("PUT", "jobs", {"Job": job})

    def allocations(self, job: str) -> list[dict[str, Any]]:
        """Return a job's allocations, oldest first."""
        found: list[dict[str, Any]] = self.ask("GET", f"job/{job}/allocations")
        return sorted(found, key=lambda allocation: int(allocation["CreateIndex"]))

    @asynccontextmanager
    async def socket(self, path: Path) -> AsyncIterator[Path]:
        """Answer at a Unix socket too, as the Task API does inside of a task."""

        async def bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
            ways = (_copy(reader, far_writer), _copy(far_reader, writer))
            await asyncio.gather(*ways, return_exceptions=True)

        server = await asyncio.start_unix_server(bridge, path)
        try:
            yield path
        finally:
            server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextmanager
def dev_nomad(folder: Path) -> Iterator[DevNomad]:
    """Run Nomad until the context ends, then every job it ran is stopped; `folder` takes its log."""
    low = 23000
    ports = {"http": free_port(), "rpc": free_port(), "serf": free_port(), "low": low, "high": low + 500}
    config = folder / "nomad.hcl"
    config.write_text(CONFIG.format(**ports))
    program = nomad_program(folder / "program")
    data = tempfile.mkdtemp(dir=folder)
    with (folder / "nomad.log").open("wb") as log:
        argv = [str(program), "agent", "-dev", "-acl-enabled", "-config", str(config), "-alloc-dir", f"{data}/alloc"]
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    nomad = DevNomad(ports["http"])
    try:
        wait_until(lambda: _bootstrapped(nomad, process, folder), START_TIMEOUT_S, "Nomad to have a leader", 0.2)
        wait_until(lambda: _ready(nomad), START_TIMEOUT_S, "Nomad's node to be ready", 0.2)
        yield nomad
        for job in nomad.ask("GET", "jobs"):
            nomad.ask("DELETE", f"job/{job['ID']}")
        wait_until(lambda: _all_ended(nomad), START_TIMEOUT_S, "the jobs to end", 0.2)
    finally:
        end(process, 20)


def _bootstrapped(nomad: DevNomad, process: subprocess.Popen[bytes], folder: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Nomad ended with {process.returncode}: {(folder / 'nomad.log').read_text()[-2000:]}")
    try:
        nomad.token = nomad.ask("PUT", "acl/bootstrap")["SecretID"]
    except (OSError, AssertionError):
        return False
    return True


def _ready(nomad: DevNomad) -> bool:
    return any(
        node["Status"] == "ready" and node.get("Drivers", {}).get("raw_exec", {}).get("Healthy")
        for node in nomad.ask("GET", "nodes")
    )


def _all_ended(nomad: DevNomad) -> bool:
    return all(a["ClientStatus"] in ("complete", "failed", "lost") for a in nomad.ask("GET", "allocations"))
