"""The services apart: a gateway without a page, a hub in front of gateways, and how what runs comes to its end."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from roost.cli.healthcheck import healthy
from roost.cli.serve_hub import HubSettings, load_hub_settings
from roost.ops.errors import RoostError
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.fakes import WORDS, FakeEngine, fake_engine
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import eventually, free_port
from tests.unit.cli.test_serve import run_briefly

KEY = {"Authorization": f"Bearer {API_KEY}"}
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**QUESTION, "stream": True}
CHAT = "/v1/chat/completions"


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with fake_engine() as made:
        yield made


@pytest.fixture
def environment(tmp_path: Path, engine: FakeEngine) -> dict[str, str]:
    key = tmp_path / "engine-key"
    key.write_text("engine-key")
    return {
        "ROOST_API_KEYS_FILE": str(write_keys(tmp_path)),
        "ROOST_ENGINE_KEY_FILE": str(key),
        "ROOST_STATIC_ENDPOINTS": engine.url,
        "ROOST_PROBE_UNREADY_EVERY_S": "0.05",
    }


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=KEY) as made:
        yield made


async def answers(client: aiohttp.ClientSession, url: str, ssl_context: ssl.SSLContext | None = None) -> bool:
    try:
        async with client.get(f"{url}/readyz", ssl=ssl_context or True) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def requests_counted(client: aiohttp.ClientSession, url: str) -> int:
    async with client.get(f"{url}/v1/usage?by=") as answer:
        data = (await answer.json())["data"]
    return int(data[0]["requests"]) if data else 0


async def begin(client: aiohttp.ClientSession, url: str, engine: FakeEngine) -> aiohttp.ClientResponse:
    """Begin a stream whose first event has come, and whose rest waits for `engine.go`."""
    engine.mode = "slow"
    answer = await client.post(f"{url}{CHAT}", json=STREAM)
    assert answer.status == 200
    assert (await answer.content.readuntil(b"\n\n")).startswith(b"data: {")
    return answer


async def test_a_gateway_apart_has_no_page_and_a_hub_no_key_of_its_own(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession
) -> None:
    with service(tmp_path, environment, "gateway") as gateway:
        hub_environment = {"ROOST_GATEWAYS": gateway.url}
        with service(tmp_path, hub_environment, "hub") as hub:
            await eventually(lambda: answers(client, hub.url), 10, "a model by way of the hub")
            async with client.get(f"{gateway.url}/") as page:
                assert page.status == 404
            async with aiohttp.ClientSession() as nobody:
                async with nobody.get(f"{hub.url}/") as page:
                    assert (page.status, page.content_type) == (200, "text/html")
                async with nobody.post(f"{hub.url}{CHAT}", json=QUESTION) as refused:
                    assert refused.status == 401
                    assert (await refused.json())["error"]["code"] == "invalid_api_key"
            async with client.post(f"{hub.url}{CHAT}", json=QUESTION) as answer:
                assert (await answer.json())["choices"][0]["message"]["content"] == "".join(WORDS)
            async with client.get(f"{hub.url}/v1/usage?by=key") as usage:  # with its query
                assert (await usage.json())["data"][0]["requests"] == 1


async def test_a_hub_asks_another_gateway_when_one_is_gone(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession
) -> None:
    with service(tmp_path, environment, "gateway") as first, service(tmp_path, environment, "gateway") as second:
        hub_environment = {"ROOST_GATEWAYS": f"{first.url},{second.url}"}
        with service(tmp_path, hub_environment, "hub") as hub:
            await eventually(lambda: answers(client, first.url), 10, "a model at the first")
            await eventually(lambda: answers(client, second.url), 10, "a model at the second")
            first.process.kill()
            first.process.wait()
            async with client.post(f"{hub.url}{CHAT}", json=QUESTION) as answer:
                assert answer.status == 200
            second.process.kill()
            second.process.wait()
            async with client.post(f"{hub.url}{CHAT}", json=QUESTION) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "gateway_unreachable")
            assert healthy("127.0.0.1", hub.port)  # nothing is wrong with the hub itself


async def test_a_client_that_leaves_the_hub_leaves_the_model_server_too(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    with (
        service(tmp_path, environment, "gateway") as gateway,
        service(tmp_path, {"ROOST_GATEWAYS": gateway.url}, "hub") as hub,
    ):
        await eventually(lambda: answers(client, hub.url), 10, "a model")
        answer = await begin(client, hub.url, engine)
        answer.close()
        await eventually(lambda: engine.left == 1, 10, "the model server to be left")


async def test_between_hub_and_gateway_there_is_tls_beyond_loopback(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession
) -> None:
    tls = tmp_path / "tls"
    tls.mkdir()
    ensure_pki(tls, [LeafSpec("api", ("127.0.0.1",))])
    port = free_port()
    pair = {"ROOST_TLS_CERT": str(tls / "api.pem"), "ROOST_TLS_KEY": str(tls / "api-key.pem")}
    with service(tmp_path, environment | pair | {"ROOST_LISTEN": f"127.0.0.1:{port}"}, "gateway"):
        there = {"ROOST_GATEWAYS": f"https://127.0.0.1:{port}"}
        with service(tmp_path, there | {"ROOST_GATEWAY_CA": str(tls / "ca.pem")}, "hub") as hub:
            await eventually(lambda: answers(client, hub.url), 10, "a model")
        with service(tmp_path, there, "hub") as hub:  # that does not know the authority
            assert not await answers(client, hub.url)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GATEWAYS", "http://192.0.2.7:8360", "beyond loopback only https"),
        ("GATEWAYS", "192.0.2.7", "no base URL"),
        ("GATEWAYS", ",", "name a gateway"),
        ("PORT", "http", "ROOST_PORT"),
    ],
)
def test_wrong_settings_of_a_hub_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"ROOST_{name}", value)
    with pytest.raises(RoostError, match=said) as caught:
        load_hub_settings()
    assert f"ROOST_{name}" in caught.value.message


def test_a_hub_with_a_wrong_authority_ends_with_a_sentence(tmp_path: Path) -> None:
    done = run_briefly({"ROOST_PORT": "0", "ROOST_GATEWAY_CA": str(tmp_path / "none")}, "hub")
    assert done.returncode == 1
    assert "ca export" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_looks_at_the_settings_and_ends() -> None:
    assert run_briefly({}, "gateway", "--check").returncode == 0
    assert run_briefly({"ROOST_BIND": "192.0.2.7"}, "gateway", "--check").returncode == 1
    assert run_briefly({"ROOST_BIND": "192.0.2.7"}, "hub", "--check").returncode == 1
    assert HubSettings().port != 8360  # both on one machine


# --- The end ------------------------------------------------------------------------------------------------------


async def stopped(running: Service) -> bool:
    return running.process.poll() is not None


async def test_a_stream_that_takes_too_long_ends_with_an_event_and_is_counted(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    more = environment | {"ROOST_STATE_DIR": str(state_dir(tmp_path)), "ROOST_DRAIN_S": "0.5"}
    with service(tmp_path, more, "gateway") as running:
        await eventually(lambda: answers(client, running.url), 10, "a model")
        answer = await begin(client, running.url, engine)
        running.process.send_signal(signal.SIGTERM)
        rest = await answer.content.read()
        await eventually(lambda: stopped(running), 10, "it to end")
        assert running.process.returncode == 0
    last = rest.strip().splitlines()[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    with service(tmp_path, more, "gateway") as again:
        assert await requests_counted(client, again.url) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asked_twice_nothing_used_is_lost(
    tmp_path: Path,
    environment: dict[str, str],
    client: aiohttp.ClientSession,
    engine: FakeEngine,
    number: signal.Signals,
) -> None:
    more = environment | {"ROOST_STATE_DIR": str(state_dir(tmp_path)), "ROOST_DRAIN_S": "60"}
    with service(tmp_path, more, "gateway") as running:
        await eventually(lambda: answers(client, running.url), 10, "a model")
        streams = [await begin(client, running.url, engine)]
        engine.mode = "hang"
        waiting = asyncio.create_task(client.post(f"{running.url}{CHAT}", json=QUESTION))
        await eventually(lambda: len(engine.chats) == 2, 10, "the request")
        running.process.send_signal(number)
        await eventually(lambda: '"stopping"' in running.log.read_text(), 10, "it to begin to stop")
        running.process.send_signal(number)
        rests = [await answer.content.read() for answer in streams]
        refused = await waiting
        assert (refused.status, (await refused.json())["error"]["code"]) == (503, "service_stopping")
        assert refused.headers["retry-after"] == "1"
        await eventually(lambda: stopped(running), 10, "it to end")
        assert running.process.returncode == 0
        assert "usage_not_written" not in running.log.read_text()
    assert all(b'"stream_interrupted"' in rest for rest in rests)
    with service(tmp_path, more, "gateway") as again:
        assert await requests_counted(client, again.url) == 2


async def test_a_turn_of_the_agent_has_the_next_gateway_and_its_model_while_the_service_stops(
    tmp_path: Path, environment: dict[str, str], client: aiohttp.ClientSession, engine: FakeEngine
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    more = {"ROOST_STATE_DIR": str(state_dir(tmp_path)), "ROOST_HEADER_TIMEOUT_S": "0.5", "ROOST_DRAIN_S": "30"}
    with service(tmp_path, environment, "gateway") as gateway:
        await eventually(lambda: answers(client, gateway.url), 20, "a model")
        with service(tmp_path, more | {"ROOST_GATEWAYS": f"{gone},{gateway.url}"}, "hub") as hub:
            await turn_over_a_stop(client, hub, engine)
    engine.go.clear()
    with service(tmp_path, environment | more) as both:
        await eventually(lambda: answers(client, both.url), 20, "a model")
        await turn_over_a_stop(client, both, engine)


async def turn_over_a_stop(client: aiohttp.ClientSession, running: Service, engine: FakeEngine) -> None:
    """Have a turn answered whose model writes on after the service was asked to stop; watch it over WebSocket."""
    engine.mode = "slow"
    async with client.post(f"{running.url}/roost/v1/sessions", json={}) as answer:
        session = f"{running.url}/roost/v1/sessions/{(await answer.json())['id']}"
    for path in ("/v1/models", "/"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await client.ws_connect(f"{running.url}{path}")
    async with client.ws_connect(f"{session}/events") as ws:
        asyncio.get_running_loop().call_later(1.0, lambda: asyncio.ensure_future(ws.send_json(HELLO)))
        text = ""
        kinds: list[str] = []
        async with asyncio.timeout(60):
            async for message in ws:
                event = json.loads(message.data)
                kinds.append(event["type"])
                text += event["text"] if event["type"] == "text" else ""
                if event["type"] == "text" and not engine.go.is_set():
                    running.process.send_signal(signal.SIGTERM)
                    await eventually(lambda: '"stopping"' in running.log.read_text(), 20, "it to begin to stop")
                    engine.go.set()
        assert text == "".join(WORDS)
        assert kinds[-3:] == ["end", "idle", "stopping"]
        assert ws.close_code == 1012
    await eventually(lambda: stopped(running), 30, "it to end")
    assert running.process.returncode == 0


HELLO = {"type": "say", "text": "hi"}


def state_dir(folder: Path) -> Path:
    """Return a folder for the state of a service."""
    made = folder / "state"
    made.mkdir(exist_ok=True)
    return made
