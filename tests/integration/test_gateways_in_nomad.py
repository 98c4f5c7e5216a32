"""Two gateways as jobs of a real Nomad: they find each other there, read the same keys, and share what was used."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from roost.fleet import deploy
from roost.fleet.agent_jobs import (
    GATEWAY_JOB,
    PEER_NAME,
    ROUTE_ITEM,
    ROUTE_VARIABLE,
    AgentChoice,
    agent_job,
    gateway_job,
)
from roost.fleet.agent_variables import AGENT_JOB, ENDPOINTS_ITEM, ENDPOINTS_VARIABLE
from roost.fleet.job_secrets import job_secrets
from roost.fleet.job_text import render_job
from roost.fleet.jobs import Identity
from roost.fleet.key_store import NomadKeyStore, ensure_variable_exists, update
from roost.fleet.nomad_api import NomadClient
from roost.fleet.nomad_setup import AGENT_POLICY, GATEWAY_POLICY, ensure_job_policy, ensure_variable
from roost.ops import api_keys
from roost.ops.api_keys import digest_of
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.gateway import REPOSITORY
from tests.support.net import free_port, wait_until
from tests.support.nomad_tls import nomad_server

pytestmark = pytest.mark.timeout(900)
FIRST = "the first key of the tests"
SOON_S = 90.0  # a few seconds, where nothing else runs


@dataclasses.dataclass(frozen=True)
class Gateways:
    """Base URLs on loopback by job."""

    client: NomadClient
    urls: dict[str, str]

    def ask(self, job: str, path: str, key: str = FIRST) -> httpx.Response:
        """Ask one of them."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(self.urls[job] + path, headers=headers, trust_env=False, timeout=60)

    def states(self, job: str) -> list[str]:
        """Return the states of all gateways as one sees them."""
        try:
            return sorted(row["state"] for row in self.ask(job, "/roost/v1/replicas").json()["data"])
        except httpx.HTTPError:
            return []


@contextmanager
def gateways_in_nomad(folder: Path) -> Iterator[Gateways]:
    """Run the agent and a further gateway from the product's own template; on one node, so at ports of their own."""
    tls = folder / "api-tls"
    tls.mkdir()
    ensure_pki(tls, [LeafSpec("api", (PEER_NAME,))])
    pair = (tls / "api.pem").read_text(), (tls / "api-key.pem").read_text()
    own = folder / "gateway-tls"  # of the node, which the further gateway uses
    own.mkdir()
    for name, source in (("cert.pem", "api.pem"), ("key.pem", "api-key.pem")):
        (own / name).write_bytes((tls / source).read_bytes())
    with nomad_server(folder) as client:
        ensure_job_policy(client, AGENT_JOB, AGENT_POLICY)
        ensure_job_policy(client, GATEWAY_JOB, GATEWAY_POLICY)
        assert ensure_variable_exists(client)
        ensure_variable(client, ROUTE_VARIABLE, {ROUTE_ITEM: ""})
        ensure_variable(client, ENDPOINTS_VARIABLE, {ENDPOINTS_ITEM: ""})
        urls = {}
        try:
            for make, name in ((agent_job, AGENT_JOB), (gateway_job, GATEWAY_JOB)):
                state, port = folder / name, free_port()
                state.mkdir()
                choice = AgentChoice(
                    "raw_exec",
                    "127.0.0.1",
                    port,
                    256,
                    "info",
                    state_dir=str(state),
                    env={"PYTHONPATH": str(REPOSITORY / "app")},
                    listen=f"192.0.2.1:{free_port()}",
                    replicas=1,
                    tls_dir=str(own),
                )
                job = make(choice, Identity("", "", os.getuid(), os.getgid()), datacenter="dc1")
                words = ["gateway"] if name == GATEWAY_JOB else []
                assert job.args[-1:] == words or not words
                job = dataclasses.replace(job, command=sys.executable, args=["-P", "-m", "roost.cli.serve", *words])
                further = dataclasses.replace(job, name=GATEWAY_JOB)  # so that there are several
                secrets = job_secrets(
                    [job, further], engine_key="k", api_keys=[FIRST], tls=pair, authority=(tls / "ca.pem").read_text()
                )
                ensure_variable(client, f"nomad/jobs/{name}", secrets[f"nomad/jobs/{name}"])
                deploy.apply(client, render_job(REPOSITORY / "nomad", job), dry_run=False, timeout_s=180)
                urls[name] = f"http://127.0.0.1:{port}"
            yield Gateways(client, urls)
        finally:
            for name in (GATEWAY_JOB, AGENT_JOB):
                deploy.stop(client, name, purge=True, timeout_s=60)


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    """Return a Nomad with both."""
    # Not below pytest's folder: the path of the Task API's socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="n", ignore_cleanup_errors=True) as folder,
        gateways_in_nomad(Path(folder)) as found,
    ):
        yield found


def sees_both(gateways: Gateways, job: str) -> bool:
    """Say whether a gateway sees the other one."""
    return gateways.states(job) == ["live", "this"]


def knows(gateways: Gateways, job: str, secret: str) -> bool:
    """Say whether a key is good at a gateway."""
    return gateways.ask(job, "/v1/key", secret).status_code == 200


def test_they_find_each_other_and_read_the_same_keys(gateways: Gateways) -> None:
    for job in (AGENT_JOB, GATEWAY_JOB):
        wait_until(partial(sees_both, gateways, job), SOON_S, f"{job} to see both", 0.1)
    secret = api_keys.new_secret()
    key = api_keys.made_key({"name": "alice", "sha256": digest_of(secret)})
    update(NomadKeyStore(gateways.client), lambda document: api_keys.with_key(document, key))
    for job in (AGENT_JOB, GATEWAY_JOB):
        wait_until(partial(knows, gateways, job, secret), SOON_S, f"the key at {job}", 0.1)
    assert gateways.ask(GATEWAY_JOB, "/").status_code == 404  # no page
    assert gateways.ask(AGENT_JOB, "/").status_code == 200
