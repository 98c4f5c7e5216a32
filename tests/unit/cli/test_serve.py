"""The process: where it may listen, how it starts, how it stops."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509

from roost.cli.healthcheck import healthy
from roost.cli.model_serve import address_of
from roost.cli.serve_listen import Listener, listeners
from roost.gateway.settings import Settings, load_settings
from roost.ops import metric_names as names
from roost.ops.errors import RoostError
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.fakes import FakeEngine, fake_engine
from tests.support.gateway import API_KEY, REPOSITORY, Service, service, write_keys
from tests.support.net import eventually, free_port, wait_until


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_by_default_only_loopback_is_listened_on() -> None:
    assert listeners(settings()) == [Listener("127.0.0.1", 8360, tls=False)]


def test_beyond_loopback_there_is_tls_beside_it(tmp_path: Path) -> None:
    found = listeners(settings(listen="[2001:db8::7]:8443", tls_cert=tmp_path, tls_key=tmp_path))
    assert found == [Listener("127.0.0.1", 8360, tls=False), Listener("2001:db8::7", 8443, tls=True)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bind": str(IPv4Address(0))}, "beyond loopback"),
        ({"bind": "192.0.2.7"}, "beyond loopback"),
        ({"bind": "::"}, "beyond loopback"),
        ({"bind": "localhost"}, "no IP address"),
        ({"listen": "192.0.2.7:8443"}, "without TLS"),
        ({"listen": "192.0.2.7:8443", "tls_cert": "/c"}, "without TLS"),
        ({"listen": "192.0.2.7"}, "not ADDR:PORT"),
        ({"listen": "all:8443"}, "not ADDR:PORT"),
        ({"listen": "192.0.2.7:65536"}, "not ADDR:PORT"),
        ({"listen": "192.0.2.7:-1"}, "not ADDR:PORT"),
    ],
)
def test_anything_else_is_refused_with_a_fix(values: dict[str, object], message: str) -> None:
    with pytest.raises(RoostError, match=message) as caught:
        listeners(settings(**values))
    assert caught.value.fix


@pytest.mark.parametrize("text", ["", "192.0.2.7", "all:8465", "192.0.2.7:65536", "192.0.2.7:-1"])
def test_models_are_served_at_an_address_only(text: str) -> None:
    assert address_of("[2001:db8::7]:8465") == Listener("2001:db8::7", 8465, tls=True)
    with pytest.raises(RoostError, match="not ADDR:PORT"):
        address_of(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("TIERS", "{no JSON"),
        ("TIERS", '{"standard": {"requests": -1}}'),
        ("MODEL_FALLBACKS", "main"),
        ("WAIT_S", "nan"),
        ("WAIT_S", "inf"),
        ("DRAIN_S", "1e300"),
        ("PROBE_EVERY_S", "inf"),
        ("USAGE_KEEP_DAYS", "1000000"),
        ("MEMORY_POOLS", "gpu=much"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ROOST_{name}", value)
    with pytest.raises(RoostError, match=f"ROOST_{name}"):
        load_settings()


def run_briefly(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Start the service where it must refuse."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "roost.cli.serve", *words],
        env={"PYTHONPATH": str(REPOSITORY / "app"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_ends_it_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_briefly({"ROOST_PORT": str(port)})
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_certificate_ends_it_with_a_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    done = run_briefly(
        {
            "ROOST_PORT": "0",
            "ROOST_LISTEN": f"127.0.0.1:{free_port()}",
            "ROOST_TLS_CERT": str(bad),
            "ROOST_TLS_KEY": str(bad),
        }
    )
    assert done.returncode == 1
    assert "The TLS certificate or its key cannot be used" in done.stderr


def test_it_needs_nothing_beyond_the_agents_requirements() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys("
        "['typer', 'rich', 'httpx', 'jinja2', 'yaml', 'cryptography', 'ansible', 'orjson']); "
        "import roost.cli.serve, roost.cli.healthcheck; roost.cli.serve.configure('info')"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(REPOSITORY / "app")}, check=True, timeout=60)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "engine-key"
    key.write_text("engine-key")
    return {"ROOST_API_KEYS_FILE": str(write_keys(tmp_path)), "ROOST_ENGINE_KEY_FILE": str(key)}


def test_the_health_check_follows_the_service(tmp_path: Path, environment: dict[str, str]) -> None:
    with service(tmp_path, environment) as running:
        command = [sys.executable, "-S", "-m", "roost.cli.healthcheck"]
        env = {"PYTHONPATH": str(REPOSITORY / "app"), "ROOST_PORT": str(running.port)}
        assert subprocess.run(command, env=env, timeout=60, check=False).returncode == 0
    assert subprocess.run(command, env=env, timeout=60, check=False).returncode == 1


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    ensure_pki(folder, [LeafSpec("api", ("roost.test", "127.0.0.1"))])
    return folder


def test_the_second_listener_speaks_tls_only(tmp_path: Path, environment: dict[str, str], tls: Path) -> None:
    port = free_port()
    more = {
        "ROOST_LISTEN": f"127.0.0.1:{port}",
        "ROOST_TLS_CERT": str(tls / "api.pem"),
        "ROOST_TLS_KEY": str(tls / "api-key.pem"),
    }
    with service(tmp_path, environment | more) as running:
        context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        assert not healthy("127.0.0.1", port)  # plain HTTP
        ends = x509.load_pem_x509_certificate((tls / "api.pem").read_bytes()).not_valid_after_utc.timestamp()
        assert metric(running, names.CERTIFICATE_END.name) == {f'{{address="127.0.0.1:{port}"}}': ends}


def test_without_tls_nothing_is_said_of_a_certificate(tmp_path: Path, environment: dict[str, str]) -> None:
    with service(tmp_path, environment) as running:
        assert metric(running, names.BUILD.name)
        assert metric(running, names.CERTIFICATE_END.name) == {}


def metric(running: Service, name: str) -> dict[str, float]:
    """Return the samples of a family that the service shows, by their labels."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {API_KEY}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    found = (line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(f"{name}{{"))
    return {labels: float(value) for labels, _, value in found}


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with fake_engine(mode="slow") as made:
        made.mode = "ready"
        yield made


async def begin_stream(running: Service, engine: FakeEngine) -> http.client.HTTPResponse:
    """Have a stream whose first event has arrived, and whose rest waits for `engine.go`."""
    await eventually(lambda: '"state": "ready"' in running.log.read_text(), 10, "the endpoint")
    engine.mode = "slow"
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {API_KEY}"})
    await eventually(lambda: len(engine.chats) == 1, 10, "the request")
    return await asyncio.to_thread(connection.getresponse)


async def test_a_stop_lets_streams_end(tmp_path: Path, environment: dict[str, str], engine: FakeEngine) -> None:
    with service(tmp_path, environment | {"ROOST_STATIC_ENDPOINTS": engine.url}) as running:
        answer = await begin_stream(running, engine)
        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: not healthy("127.0.0.1", running.port), 10, "it to take no more requests")
        engine.go.set()
        rest = await asyncio.to_thread(answer.read)
        assert rest.endswith(b"data: [DONE]\n\n")
        await eventually(lambda: running.process.poll() == 0, 10, "it to end")


async def test_a_stop_does_not_wait_for_ever(tmp_path: Path, environment: dict[str, str], engine: FakeEngine) -> None:
    more = {"ROOST_STATIC_ENDPOINTS": engine.url, "ROOST_DRAIN_S": "1"}
    with service(tmp_path, environment | more) as running:
        answer = await begin_stream(running, engine)
        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: running.process.poll() == 0, 10, "it to end")
        answer.close()


async def test_who_reads_the_log_may_end_first(tmp_path: Path, environment: dict[str, str], engine: FakeEngine) -> None:
    """As on a machine that goes down: requests are answered all the same, and a stop is a stop."""
    reading, writing = os.pipe()
    with service(tmp_path, environment | {"ROOST_STATIC_ENDPOINTS": engine.url}, stderr=writing) as running:
        os.close(writing)
        os.close(reading)
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {API_KEY}"})
        assert (await asyncio.to_thread(connection.getresponse)).status == 200
        connection.close()
        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: running.process.poll() is not None, 10, "it to end")
        assert running.process.returncode == 0


async def test_asked_twice_it_stops_at_once(tmp_path: Path, environment: dict[str, str], engine: FakeEngine) -> None:
    more = {"ROOST_STATIC_ENDPOINTS": engine.url, "ROOST_DRAIN_S": "60"}
    with service(tmp_path, environment | more) as running:
        answer = await begin_stream(running, engine)
        running.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Shutting down" in running.log.read_text(), 10, "it to begin to stop")
        running.process.send_signal(signal.SIGINT)
        await eventually(lambda: running.process.poll() == 0, 10, "it to end")
        answer.close()
