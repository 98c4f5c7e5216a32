"""Endpoints added by hand over HTTP: a real model server, killed and returned, and a service of Anthropic's shape."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.support.engine import EngineProcess, llama_server
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until
from tests.support.services import KEY, Anthropic, running
from tests.unit.engines.test_anthropic_chat import EVENTS

PATH = "/roost/v1/endpoints"
TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
PICTURE = "data:image/png;base64,QUJD"
ASKED: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": [
        {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PICTURE}},
    ]}
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service that knows no model server of its own."""
    folder = tmp_path_factory.mktemp("by-hand")
    environment = {"ROOST_API_KEYS_FILE": str(write_keys(folder)), "ROOST_ENDPOINTS_FILE": str(folder / "e.json")}
    with service(folder, environment | {"ROOST_WAIT_S": "1"}) as made:
        yield made


@pytest.fixture(scope="module")
def http(gateway: Service) -> Iterator[httpx.Client]:
    """Return a client with an administrator's key."""
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def client(gateway: Service) -> Iterator[OpenAI]:
    """Return the official client."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=API_KEY, max_retries=0, timeout=60) as made:
        yield made


def entry(http: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"{PATH}/{name}").json()
    return found


def ready(http: httpx.Client, name: str) -> dict[str, Any]:
    wait_until(lambda: entry(http, name).get("state") == "ready", 60, f"{name} to be ready")
    return entry(http, name)


def test_a_real_server_is_added_killed_and_returns(
    http: httpx.Client, client: OpenAI, tmp_path: Path, engine: EngineProcess
) -> None:
    del engine  # its parts are built once
    with llama_server(tmp_path) as server:
        body = {"name": "box", "url": server.base_url, "key": server.key_file.read_text().strip(), "tier": "potato"}
        made = http.post(PATH, json=body).json()
        assert (made["engine"], made["source"]) == ("llama.cpp", "by hand")
        found = ready(http, "box")
        (model,) = found["models"]
        assert model["context"] > 0
        assert "generate" in model["can"]
        assert found["parallel"] >= 1
        wait_until(lambda: entry(http, "box")["load"]["running"] == 0, 20, "its load")
        assert found["version"]
        tried = http.post(f"{PATH}/box/test", json={}).json()
        assert (tried["ok"], tried["answered"], tried["model"]) == (True, True, model["id"])
        said = client.chat.completions.create(model="box", messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
        assert said.model == model["id"]
        shown = client.models.retrieve(model["id"]).model_extra or {}
        assert (shown["roost"]["source"], shown["roost"]["tier"]) == (["by hand"], "potato")
        server.process.kill()
        wait_until(lambda: entry(http, "box")["state"] == "down", 20, "it to be down")
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model="box", messages=[{"role": "user", "content": "Hi"}])
        assert refused.value.status_code == 503
    assert http.delete(f"{PATH}/box").json()["removed"] is True


@pytest.fixture(scope="module")
def cloud(http: httpx.Client) -> Iterator[Anthropic]:
    """Return a service of Anthropic's shape, added by hand."""
    up, end, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    made = Anthropic(events=EVENTS)

    async def run() -> None:
        async with running(made):
            up.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert up.wait(20)
    answer = http.post(PATH, json={"name": "cloud", "url": made.url, "key": KEY})
    assert answer.status_code == 201, answer.text
    ready(http, "cloud")
    yield made
    http.delete(f"{PATH}/cloud")
    loop.call_soon_threadsafe(end.set)
    thread.join(20)
    loop.close()


def test_the_openai_client_gets_an_answer_with_tools_about_an_image(client: OpenAI, cloud: Anthropic) -> None:
    cloud.message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "stop_reason": "tool_use",
        "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Paris"}}],
        "usage": {"input_tokens": 12, "output_tokens": 3},
    }  # fmt: skip
    said = client.chat.completions.create(model="claude-test", messages=ASKED, tools=[TOOL], tool_choice="required")
    (call,) = said.choices[0].message.tool_calls or []
    assert call.to_dict()["function"] == {"name": "weather", "arguments": '{"town": "Paris"}'}
    assert said.usage is not None
    assert said.usage.total_tokens == 15
    (asked,) = cloud.bodies("/v1/messages")
    assert asked["tool_choice"] == {"type": "any"}
    assert "base64" in str(asked["messages"])


def test_the_openai_client_gets_a_stream(client: OpenAI, cloud: Anthropic) -> None:
    cloud.cut_after = None
    with client.chat.completions.stream(
        model="claude-test", messages=ASKED, stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Let me sée"
    calls = [call.function for call in final.choices[0].message.tool_calls or []]
    assert [(call.name, call.arguments) for call in calls] == [("weather", '{"town": "Paris"}'), ("now", "{}")]
    assert final.usage is not None
    assert final.usage.completion_tokens == 9


def test_a_stream_that_breaks_off_is_an_error_for_the_client(client: OpenAI, cloud: Anthropic) -> None:
    cloud.cut_after = 9
    with (
        pytest.raises(openai.APIError),
        client.chat.completions.create(model="claude-test", messages=ASKED, stream=True) as stream,
    ):
        list(stream)
    cloud.cut_after = None


def test_what_anthropic_cannot_say_is_refused_with_its_reason(client: OpenAI, cloud: Anthropic) -> None:
    before = len(cloud.bodies("/v1/messages"))
    with pytest.raises(openai.BadRequestError, match="seed"):
        client.chat.completions.create(model="claude-test", messages=ASKED, seed=7)
    with pytest.raises(openai.BadRequestError, match="json_object"):
        client.chat.completions.create(model="claude-test", messages=ASKED, response_format={"type": "json_object"})
    assert len(cloud.bodies("/v1/messages")) == before
