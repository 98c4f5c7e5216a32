"""The agent as a job of a real Nomad, which replaces it: whoever asks at its one address meanwhile has an answer."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from roost.fleet import deploy
from roost.fleet.agent_jobs import ROUTE_ITEM, ROUTE_VARIABLE, AgentChoice, AgentJob, agent_job
from roost.fleet.agent_variables import AGENT_JOB, ENDPOINTS_ITEM, ENDPOINTS_VARIABLE
from roost.fleet.job_secrets import job_secrets
from roost.fleet.job_text import render_job
from roost.fleet.jobs import Identity
from roost.fleet.key_store import ensure_variable_exists
from roost.fleet.nomad_api import NomadClient
from roost.fleet.nomad_setup import AGENT_POLICY, ensure_job_policy, ensure_variable
from roost.ops.listen_keeper import FOLDER
from tests.support.fakes import fake_engine
from tests.support.gateway import API_KEY, REPOSITORY
from tests.support.net import free_port
from tests.support.nomad_tls import nomad_server
from tests.support.replaced import clients, keeper_process


def job_of(state: Path, port: int, engine: str, log_level: str) -> AgentJob:
    """Return the product's own job of the agent, run by this Python."""
    choice = AgentChoice(
        "raw_exec",
        "127.0.0.1",
        port,
        256,
        log_level,
        state_dir=str(state),
        env={"PYTHONPATH": str(REPOSITORY / "app"), "ROOST_STATIC_ENDPOINTS": engine},
    )
    job = agent_job(choice, Identity("", "", os.getuid(), os.getgid()), datacenter="dc1")
    return dataclasses.replace(job, command=sys.executable, args=["-P", "-m", "roost.cli.serve"])


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[tuple[NomadClient, Path, int, str]]:
    """Have a Nomad that may run the job, what keeps its socket, and a model server."""
    state = folder / "state"
    (state / FOLDER).mkdir(mode=0o700, parents=True)
    async with fake_engine(says_why=True) as engine:
        with nomad_server(folder) as client, keeper_process(state / FOLDER):
            ensure_job_policy(client, AGENT_JOB, AGENT_POLICY)
            assert ensure_variable_exists(client)
            ensure_variable(client, ROUTE_VARIABLE, {ROUTE_ITEM: ""})
            ensure_variable(client, ENDPOINTS_VARIABLE, {ENDPOINTS_ITEM: ""})
            yield client, state, free_port(), engine.url


def run(client: NomadClient, job: AgentJob) -> None:
    """Have Nomad run a version of the job, and wait until it is healthy."""
    secrets = job_secrets([job], engine_key="engine-key", api_keys=[API_KEY], tls=None)
    ensure_variable(client, f"nomad/jobs/{AGENT_JOB}", secrets[f"nomad/jobs/{AGENT_JOB}"])
    deploy.apply(client, render_job(REPOSITORY / "nomad", job), dry_run=False, timeout_s=120)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder that is not below pytest's: the path of the Task API's socket must be short."""
    with tempfile.TemporaryDirectory(prefix="n", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


async def test_a_job_that_is_replaced_refuses_nobody(short: Path) -> None:
    async with at_work(short) as (client, state, port, engine):
        try:
            await asyncio.to_thread(run, client, job_of(state, port, engine, "info"))
            with clients(short, f"http://127.0.0.1:{port}") as asking:
                for log_level in ("debug", "info"):
                    await asking.more()
                    await asyncio.to_thread(run, client, job_of(state, port, engine, log_level))
                await asking.more()
                found = asking.found()
        finally:
            await asyncio.to_thread(deploy.stop, client, AGENT_JOB, purge=True, timeout_s=60)
    assert found["failed"] == 0, found
