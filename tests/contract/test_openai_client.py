"""The official `openai` client against the real service and a real `llama-server`."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.support.engine import MODEL, EngineProcess
from tests.support.gateway import API_KEY, Service
from tests.support.net import wait_until

CAPITAL: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.mark.parametrize("name", [MODEL, "auto", "main"])
def test_a_plain_answer(client: OpenAI, name: str) -> None:
    answer = client.chat.completions.create(model=name, messages=CAPITAL, temperature=0, max_tokens=32)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_a_streamed_answer_with_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="auto",
            messages=CAPITAL,
            temperature=0,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The capital of France is Paris."
    assert len([chunk for chunk in chunks if chunk.choices]) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert {chunk.model for chunk in chunks} == {MODEL}


def test_headers_say_who_answered(client: OpenAI, engine: EngineProcess) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=CAPITAL, max_tokens=1)
    assert raw.headers["x-roost-model"] == MODEL
    assert raw.headers["x-roost-endpoint"] == f"main@127.0.0.1:{engine.port}"
    assert raw.headers["x-request-id"]


def test_tools_and_fields_of_the_engine_pass_through(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto",
        messages=CAPITAL,
        max_tokens=8,
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Weather of a city.",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            }
        ],
        extra_body={"top_k": 1, "timings_per_token": True},
    )
    assert answer.choices[0].message.content
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="auto", messages=CAPITAL, max_tokens=8, extra_body={"tools": [{"type": "bogus"}]}
        )
    assert caught.value.param == "tools.0.type"


def test_a_json_schema_passes_through(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="auto",
        messages=CAPITAL,
        temperature=0,
        max_tokens=40,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "capital",
                "schema": {
                    "type": "object",
                    "properties": {"capital": {"enum": ["Paris", "Lyon"]}},
                    "required": ["capital"],
                },
            },
        },
    )
    assert json.loads(answer.choices[0].message.content or "")["capital"] in {"Paris", "Lyon"}


def test_a_wrong_key_is_an_authentication_error(roost: Service) -> None:
    stranger = OpenAI(base_url=f"{roost.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError) as caught:
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-nonesuch", messages=CAPITAL)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-nonesuch")


def test_no_messages_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="auto", messages=[])
    assert caught.value.param == "messages"


def test_what_the_engine_refuses_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hello " * 6000}])
    assert caught.value.code == "context_length_exceeded"


def test_the_models_are_listed(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "roost")
    extras = model.to_dict()["roost"]
    assert isinstance(extras, dict)
    assert extras["state"] == "ready"
    assert extras["context"] == 4096
    assert extras["slot"] == "main"
    assert extras["aliases"] == ["auto", "main", "router", "specialist", "memory"]
    assert client.models.retrieve(MODEL).id == MODEL


NAME = "gateways.example"


@pytest.fixture
def several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of two nodes; on the first one the gateway is just being replaced, and nobody listens."""
    asked = socket.getaddrinfo

    def found(host: str | bytes | None, *args: Any, **more: Any) -> list[Any]:  # noqa: ANN401 (as in the standard library)
        if host not in (NAME, NAME.encode()):
            return asked(host, *args, **more)
        return [entry for address in ("127.0.0.2", "127.0.0.1") for entry in asked(address, *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.usefixtures("several_addresses")
def test_a_gateway_that_refuses_is_passed_over_where_its_name_has_others(roost: Service) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", roost.port), timeout=5)
    url = f"http://{NAME}:{roost.port}/v1"
    with OpenAI(base_url=url, api_key=API_KEY, max_retries=0, timeout=60) as plain:
        assert plain.chat.completions.create(model="auto", messages=CAPITAL, max_tokens=1).choices

    async def ask() -> None:
        async with AsyncOpenAI(base_url=url, api_key=API_KEY, max_retries=0, timeout=60) as client:
            assert (await client.chat.completions.create(model="auto", messages=CAPITAL, max_tokens=1)).choices

    asyncio.run(ask())


def busy_slots(engine: EngineProcess) -> int:
    """Ask the model server itself how many slots work."""
    status, body = engine.get("/slots")
    assert status == 200
    return sum(slot["is_processing"] for slot in json.loads(body))


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_frees_the_slot(roost: Service, engine: EngineProcess, *, streamed: bool) -> None:
    wait_until(lambda: busy_slots(engine) == 0, 30, "all slots to be free")
    connection = http.client.HTTPConnection("127.0.0.1", roost.port, timeout=60)
    body = {"messages": CAPITAL, "stream": streamed, "ignore_eos": True, "max_tokens": 4000}
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    wait_until(lambda: busy_slots(engine) == 1, 30, "a slot to work")
    connection.close()
    # Without a stream llama-server looks whether its client is still there only when nobody got anything for a
    # second; asking for its slots counts, so ask seldom.
    wait_until(lambda: busy_slots(engine) == 0, 30, "the slot to be free again", step_s=0.1 if streamed else 3)
    wait_until(lambda: '"status": 499' in roost.log.read_text(), 10, "it to be logged")


def test_the_log_is_json_without_keys_or_conversations(roost: Service, client: OpenAI, engine: EngineProcess) -> None:
    client.chat.completions.create(model="auto", messages=CAPITAL, max_tokens=1)
    text = roost.log.read_text()
    for line in text.splitlines():
        assert json.loads(line)["event"]
    for secret in (API_KEY, engine.key_file.read_text(), "capital"):
        assert secret not in text
