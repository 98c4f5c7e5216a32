"""Stopping, starting and replacing a real `llama-server` through a real Nomad, with the agent's own rights."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from roost.fleet.artifacts.engine import engine_command
from roost.fleet.job_text import hcl_string
from tests.support.engine import ENGINE_KEY, MODEL, engine_tree, model_file
from tests.support.gateway import quick_settings, served
from tests.support.net import eventually
from tests.support.nomad import DevNomad, dev_nomad

JOB = "roost-model-main"
NO_KEEP_ALIVE = {"Connection": "close"}  # the service closes a connection after 5 idle seconds, maybe just as we ask
TEMPLATE = """
job "{job}" {{
  type = "service"
  update {{
    min_healthy_time = "0s"
    healthy_deadline = "3m"
  }}
  group "engine" {{
    network {{
      mode = "host"
      port "http" {{}}
    }}
    service {{
      name     = "{job}"
      port     = "http"
      provider = "nomad"
      tags     = ["engine=llama.cpp", "model={model}", "memory=host:1000", "keeps_slots=true"]
      check {{
        type     = "http"
        path     = "/health"
        interval = "1s"
        timeout  = "1s"
      }}
    }}
    task "engine" {{
      driver       = "raw_exec"
      kill_timeout = "1s"
      config {{
        command  = {command}
        work_dir = {work_dir}
        args     = [{args}]
      }}
      resources {{
        cpu    = 100
        memory = 600
      }}
    }}
  }}
}}
"""


def job_text(key_file: Path, slots: Path) -> str:
    """Return the job of the smallest model, as plain as it can be."""
    (command, *args), work_dir = engine_command(engine_tree())
    args += ["--model", str(model_file()), "--alias", MODEL, "--host", "127.0.0.1", "--port", "${NOMAD_PORT_http}"]
    args += ["--api-key-file", str(key_file), "--ctx-size", "4096", "--parallel", "2", "--cache-ram", "0"]
    args += ["--slot-save-path", f"{slots}/"]
    return TEMPLATE.format(
        job=JOB,
        model=MODEL,
        command=hcl_string(command),
        work_dir=hcl_string(work_dir),
        args=", ".join(hcl_string(arg) for arg in args),
    )


@pytest.fixture
def nomad(tmp_path: Path) -> object:
    """A real Nomad."""
    with dev_nomad(tmp_path) as running:
        yield running


def pid_of_server(slots: Path) -> int:
    """Return the process that saves its slots in this folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{slots}/".encode() in argv and b"--slot-save-path" in argv:
                return int(entry.name)
    return 0


async def test_a_model_is_stopped_when_idle_started_on_demand_and_replaced_when_frozen(
    tmp_path: Path, nomad: DevNomad
) -> None:
    slots, key_file = tmp_path / "slots", tmp_path / "engine-key"
    slots.mkdir()
    key_file.write_text(ENGINE_KEY)
    nomad.run(job_text(key_file, slots))
    question = {
        "model": "auto",
        "messages": [{"role": "user", "content": "The keeper counts the ships. " * 20 + "How many?"}],
        "max_tokens": 2,
    }
    async with AsyncExitStack() as stack:
        socket = await stack.enter_async_context(nomad.socket(tmp_path / "api.sock"))
        settings = quick_settings(
            tmp_path,
            nomad_socket=socket,
            NOMAD_TOKEN=SecretStr(nomad.agent_token()),
            engine_key_file=key_file,
            canary_timeout_s=30,
            health_timeout_s=5,
            idle_stop_s=3,
            stuck_restart_s=1,
            start_wait_s=100,
            wait_s=100,
        )
        gateway = await stack.enter_async_context(served(settings))

        def states() -> list[str]:
            return gateway.states()

        async def ask() -> dict[str, dict[str, dict[str, int]]]:
            url = f"{gateway.url}/v1/chat/completions"
            async with gateway.client.post(url, json=question, headers=NO_KEEP_ALIVE) as answer:
                document: dict[str, dict[str, dict[str, int]]] = await answer.json()
                assert answer.status == 200, document
                return document

        await eventually(lambda: states() == ["ready"], 100, "the model")
        assert (await ask())["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        await eventually(lambda: states() == ["cold"], 60, "the idle model to be stopped")
        await eventually(lambda: pid_of_server(slots) == 0, 30, "its process to end")
        assert nomad.ask("GET", f"job/{JOB}")["TaskGroups"][0]["Count"] == 0

        assert (await ask())["usage"]["prompt_tokens_details"]["cached_tokens"] > 50  # it was started, and remembers
        first = nomad.allocations(JOB)[-1]["ID"]

        frozen = pid_of_server(slots)
        os.kill(frozen, signal.SIGSTOP)
        asking = asyncio.create_task(ask())  # keeps it from being idle
        await eventually(lambda: nomad.allocations(JOB)[-1]["ID"] != first, 120, "another allocation")
        await asking
        assert pid_of_server(slots) != frozen  # what did not end by itself was killed
