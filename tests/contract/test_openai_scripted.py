"""The official `openai` client against the service in front of a scripted model server (tests/support/fakes.py).

For what the smallest real model cannot be brought to do: call tools, and fail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.support.fakes import WORDS, FakeEngine, fake_engine
from tests.support.gateway import API_KEY, Served, quick_settings, served

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with fake_engine() as made:
        yield made


@pytest.fixture
async def roost(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(quick_settings(tmp_path, static_endpoints=engine.url, wait_s=0.3)) as gateway:
        await gateway.ready()
        yield gateway


@pytest.fixture
async def client(roost: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{roost.url}/v1", api_key=API_KEY, max_retries=0) as made:
        yield made


async def test_tools_go_there_and_calls_come_back(client: AsyncOpenAI, engine: FakeEngine) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    engine.message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = await client.chat.completions.create(
        model="tiny", messages=QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    )
    assert answer.choices[0].message.tool_calls
    assert answer.choices[0].message.tool_calls[0].to_dict() == call
    assert engine.chats[-1]["tools"] == TOOLS
    assert engine.chats[-1]["tool_choice"] == "required"
    assert engine.chats[-1]["parallel_tool_calls"] is False


async def test_a_stream_that_breaks_is_an_api_error_after_what_came(client: AsyncOpenAI, engine: FakeEngine) -> None:
    engine.mode = "die-mid-event"
    chunks = await client.chat.completions.create(model="tiny", messages=QUESTION, stream=True)
    for word in WORDS[:2]:
        assert (await anext(chunks)).choices[0].delta.content == word
    with pytest.raises(openai.APIError, match="model server failed"):
        await anext(chunks)


async def test_a_model_that_does_not_become_ready_is_an_internal_server_error(
    client: AsyncOpenAI, engine: FakeEngine
) -> None:
    engine.mode = "loading"
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="tiny", messages=QUESTION)
    assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")


async def test_a_failing_engine_is_an_internal_server_error(client: AsyncOpenAI, engine: FakeEngine) -> None:
    engine.mode = "error"
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="tiny", messages=QUESTION)
    assert (caught.value.status_code, caught.value.code) == (502, "engine_failed")
