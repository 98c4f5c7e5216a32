"""Prometheus as the job that the playbook runs, in a real Nomad: from the tree of the product, with its own key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roost.fleet.agent_jobs import KEYS_ITEM, KEYS_VARIABLE
from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.artifacts.monitoring import monitoring_command
from roost.fleet.job_text import render_job
from roost.fleet.jobs import MONITORING_JOB, Identity
from roost.fleet.monitoring.job import MonitoringPrograms, MonitoringWish, ensure_watch_key, monitoring_job
from roost.fleet.monitoring.rules import AGENT_METRICS_JOB, ENGINES_JOB, JOB
from roost.fleet.nomad_api import NomadRefusedError
from tests.support.engine import REPOSITORY
from tests.support.fakes import fake_engine
from tests.support.gateway import quick_settings, served
from tests.support.net import eventually, free_port
from tests.support.nomad import DevNomad, Json, dev_nomad
from tests.support.promtool import monitoring_tree

# Stands for the agent's job: the gateway itself runs in the test.
AGENT = """
job "{name}" {{
  group "agent" {{
    network {{
      mode = "host"
      port "api" {{ static = {port} }}
    }}
    service {{
      name     = "{name}"
      port     = "api"
      provider = "nomad"
    }}
    task "agent" {{
      driver = "raw_exec"
      config {{
        command = "/bin/sleep"
        args    = ["600"]
      }}
      resources {{
        cpu    = 10
        memory = 10
      }}
    }}
  }}
}}
"""
ROOT = Identity("root", "root", 0, 0)  # the tests' folders are open to nobody else


class Client:
    """As much of `NomadClient` as variables need, without TLS."""

    def __init__(self, nomad: DevNomad) -> None:
        self._nomad = nomad

    def get(self, path: str) -> Json:
        try:
            return self._nomad.ask("GET", path)
        except AssertionError as error:
            raise NomadRefusedError(404, str(error), path) from None

    def put(self, path: str, body: object, cas: str | None = None) -> Json:
        _ = cas
        return self._nomad.ask("PUT", path, body)


@pytest.fixture
def nomad(tmp_path: Path) -> object:
    """A real Nomad."""
    with dev_nomad(tmp_path) as running:
        yield running


async def test_the_job_scrapes_the_gateways_that_nomad_knows(tmp_path: Path, nomad: DevNomad) -> None:
    tree = await asyncio.to_thread(monitoring_tree)
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
    assert size < 250 << 20
    client: Any = Client(nomad)
    assert ensure_watch_key(client)
    keys = tmp_path / "keys.json"
    keys.write_text(nomad.ask("GET", f"var/{KEYS_VARIABLE}")["Items"][KEYS_ITEM])
    state = tmp_path / "state"
    state.mkdir()
    port = free_port()
    wish = MonitoringWish(
        port=port, memory_mib=256, scrape_s=5, keep_days=1, keep_mib=64, state_dir=str(state), identity=ROOT
    )
    programs = MonitoringPrograms(command=tuple(monitoring_command(tree)))
    job = monitoring_job(wish, programs, "raw_exec", datacenter="dc1", bind="127.0.0.1")
    text = render_job(REPOSITORY / "nomad", job).replace('host_network = "loopback"', "")  # this Nomad has none
    async with (
        fake_engine(metrics="llamacpp:requests_processing 1\n") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=keys)) as gateway,
        aiohttp.ClientSession() as session,
    ):
        await asyncio.to_thread(nomad.run, AGENT.format(name=AGENT_JOB, port=gateway.url.rpartition(":")[2]))
        await asyncio.to_thread(nomad.run, text)

        async def up() -> bool:
            url = f"http://127.0.0.1:{port}/api/v1/targets"
            try:
                async with session.get(url) as answer:
                    targets = (await answer.json())["data"]["activeTargets"]
            except (aiohttp.ClientError, OSError):
                return False
            seen.clear()
            seen.extend((target["labels"]["job"], target["health"], target["lastError"]) for target in targets)
            return sorted(seen) == [(job, "up", "") for job in (JOB, AGENT_METRICS_JOB, ENGINES_JOB)]

        seen: list[tuple[str, str, str]] = []
        try:
            await eventually(up, 90, "Prometheus to scrape the gateway")
        except AssertionError:
            told = await asyncio.to_thread(nomad.allocations, MONITORING_JOB)
            pytest.fail(f"{seen} {json.dumps(told[-1].get('TaskStates'))[:1500]}" if told else f"{seen}: no allocation")
        async with session.get(f"http://127.0.0.1:{port}/api/v1/rules") as answer:
            (group,) = (await answer.json())["data"]["groups"]
        assert {rule["name"] for rule in group["rules"]} >= {"RoostGatewayDown", "RoostSlotDown"}
        assert any("{{ $labels.slot }}" in rule["annotations"]["summary"] for rule in group["rules"])
        assert list(state.iterdir())
