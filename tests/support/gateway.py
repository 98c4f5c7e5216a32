"""The gateway for tests: inside the test's own event loop, or as the process that users run."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import uvicorn

from roost.cli.healthcheck import healthy
from roost.engines.wire import KEEP_ALIVE_S
from roost.gateway.app import Gateway, build, client_session, running
from roost.gateway.connection.protocol import http_protocol
from roost.gateway.endpoints.endpoint import Endpoint
from roost.gateway.registry import Registry
from roost.gateway.settings import Settings
from roost.web.front import Front
from roost.web.sessions import Sessions
from tests.support.net import eventually, free_port, wait_until
from tests.support.processes import end

API_KEY = "roost-key-of-the-tests"
REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120.0


def write_keys(folder: Path, *keys: str) -> Path:
    """Write a file of accepted keys as the service wants it."""
    path = folder / "api-keys"
    path.write_text("".join(hashlib.sha256(key.encode()).hexdigest() + "\n" for key in keys or (API_KEY,)))
    return path


def quick_settings(folder: Path, **more: object) -> Settings:
    """Return settings with short times; the engine's key is that of the fake one."""
    engine_key = folder / "fake-engine-key"
    engine_key.write_text("engine-key\n")
    values: dict[str, object] = {
        "api_keys_file": write_keys(folder),
        "engine_key_file": engine_key,
        "wait_s": 5.0,
        "probe_every_s": 0.1,
        "probe_unready_every_s": 0.05,
        "canary_timeout_s": 0.4,
        "health_timeout_s": 2.0,
    }
    return Settings.model_validate(values | more)


@dataclass(frozen=True)
class Served:
    """A gateway that answers at `url`, with a client that has the key."""

    url: str
    gateway: Gateway
    client: aiohttp.ClientSession

    async def ready(self, count: int = 1) -> None:
        """Wait until that many endpoints are ready."""
        await eventually(lambda: self.states().count("ready") >= count, 10, f"{count} ready endpoints")

    def states(self) -> list[str]:
        """Return the state of every endpoint."""
        return [view.state.value for view in self.gateway.registry.views()]


@asynccontextmanager
async def served(
    settings: Settings, http: type[asyncio.Protocol] | Literal["httptools"] | None = None
) -> AsyncIterator[Served]:
    """Run the whole application on a free port, its connections as `http` says, or as the service has them."""
    async with client_session(traced=bool(settings.otel_endpoint)) as upstream:
        gateway = build(settings, upstream)
        front = Front(gateway.app, Sessions(settings.state_dir, settings.web_session_s))
        protocol = http or http_protocol(settings.header_timeout_s)
        config = uvicorn.Config(front, lifespan="off", log_config=None, http=protocol, ws="none")
        server = uvicorn.Server(config)
        sock = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        task = asyncio.create_task(server.serve(sockets=[sock]))
        headers = {"Authorization": f"Bearer {API_KEY}"}
        # Uvicorn closes a connection after 5 idle seconds, on a busy machine just as it is used again.
        connector = aiohttp.TCPConnector(keepalive_timeout=KEEP_ALIVE_S)
        async with running(gateway, settings), aiohttp.ClientSession(connector=connector, headers=headers) as client:
            yield Served(url, gateway, client)
        server.should_exit = server.force_exit = True
        await task


@dataclass(frozen=True)
class Service:
    """The service as a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Return its address on loopback."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def service(
    folder: Path,
    environment: Mapping[str, str],
    *words: str,
    port: int = 0,
    python: Path = Path(sys.executable),
    stderr: int | None = None,
) -> Iterator[Service]:
    """Run `python -m roost.cli.serve` and `words` until the context ends; `folder` takes its log, or `stderr` does."""
    port = port or free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOST_")}
    variables = {**inherited, "PYTHONPATH": str(REPOSITORY / "app"), "ROOST_PORT": str(port), **environment}
    log = folder / f"service-{port}.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [python, "-P", "-m", "roost.cli.serve", *words],
            env=variables,
            stderr=stream if stderr is None else stderr,
            cwd=folder,
        )
    try:
        wait_until(lambda: _up(process, port, log), START_TIMEOUT_S, "the service to answer")
        yield Service(process, port, log)
    finally:
        end(process, 30)


def _up(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the service ended with {process.returncode}: {log.read_text()}")
    return healthy("127.0.0.1", port)


def endpoint_at(registry: Registry, name: str) -> Endpoint:
    """Return the endpoint of that name."""
    endpoint = registry.get(name)
    assert endpoint
    return endpoint
