"""Clients of other kinds of servers, against servers scripted from their documentation (tests/support/services.py)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from roost.engines.base import Engine, Load, Report, Skill, State
from roost.engines.clients import UnknownServerError, connect, detect
from roost.engines.http_server import Pace
from roost.engines.prometheus import read_samples
from roost.engines.vllm import VllmServer, load_of
from roost.gateway.app import client_session
from tests.support.fakes import fake_engine
from tests.support.net import free_port
from tests.support.services import KEY, Anthropic, LmStudio, Ollama, OpenAi, Service, Vllm, running
from tests.support.web_server import serving

CHAT = "/v1/chat/completions"
LIMITS = aiohttp.ClientTimeout(total=10)
PACE = Pace(canary_every_s=60, canary_timeout_s=2, health_timeout_s=20)


@asynccontextmanager
async def client(engine: str, service: Service, key: str = "", allowed: tuple[str, ...] = ()) -> AsyncIterator[Engine]:
    async with running(service), client_session() as session:
        yield connect(engine, service.url, session, lambda: key or service.key, PACE, allowed=allowed)


async def look(client: Engine, *, busy: bool = False) -> Report:
    return await client.probe(busy=busy)


async def test_ollama_says_which_models_are_warm_and_what_each_can() -> None:
    async with client("ollama", ollama := Ollama()) as engine:
        report = await look(engine)
        assert report.models == ("qwen3:8b", "llama3.2:1b", "all-minilm:22m")  # warm first, embedding last
        assert report.version == "0.12.6"
        warm, cold = report.details["qwen3:8b"], report.details["llama3.2:1b"]
        assert (warm.state, warm.context, warm.context_most) == (State.READY, 8192, 40960)
        assert (warm.memory, warm.vram, warm.quantisation) == (6 << 30, 5 << 30, "Q4_K_M")
        assert (cold.state, cold.context, cold.context_most, cold.memory) == (State.COLD, None, 40960, None)
        assert report.lacks_of("all-minilm:22m") == {Skill.RERANK, Skill.GENERATE}
        assert report.lacks_of("qwen3:8b") == {Skill.RERANK, Skill.EMBED}
        await look(engine)
        assert len(ollama.bodies("/api/show")) == 3  # asked once
        assert not ollama.bodies(CHAT)  # to ask for a token would load a model
        ollama.loaded = {"llama3.2:1b": 4096}
        assert (await look(engine)).models[0] == "llama3.2:1b"


async def test_what_ollama_would_pass_on_to_a_cloud_is_left_out_unless_it_is_named() -> None:
    async with client("ollama", Ollama()) as engine:
        assert not any("cloud" in model for model in (await look(engine)).models)
    async with client("ollama", Ollama(), allowed=("gpt-oss:120b-cloud",)) as engine:
        assert (await look(engine)).models == ("gpt-oss:120b-cloud",)


async def test_ollama_counts_a_chat_without_cutting_it() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    body = {
        "model": "qwen3:8b",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
    }
    async with client("ollama", ollama := Ollama(prompt_tokens=321)) as engine:
        await look(engine)
        assert await engine.count(CHAT, json.dumps(body).encode()) == 321
        (asked,) = ollama.bodies("/api/chat")
        assert (asked["truncate"], asked["shift"]) == (False, False)
        assert asked["messages"] == [
            {"role": "user", "content": "Hi", "images": ["QUJD"]},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        ]
        ollama.too_long = True
        assert await engine.count(CHAT, json.dumps(body).encode()) == 8193


@pytest.mark.parametrize("old", [False, True])
async def test_lm_studio_says_which_models_are_loaded_with_what_context(old: bool) -> None:
    async with client("lmstudio", LmStudio(old=old)) as engine:
        report = await look(engine)
        detail = report.details["qwen3"]
        assert report.models[0] == "qwen3"
        assert (detail.state, detail.context, detail.context_most) == (State.READY, 4096, 32768)
        assert detail.quantisation == "Q4_K_M"
        assert report.details["nomic"].state is State.COLD
        assert Skill.GENERATE in report.lacks_of("nomic")
        assert report.slots == (None if old else 4)


async def test_vllm_tells_its_context_its_load_and_proves_that_it_lives() -> None:
    async with client("vllm", vllm := Vllm(running=0)) as engine:
        report = await look(engine)
        assert (report.models, report.context, report.version) == (("org/a",), 2048, "0.32.0")
        assert report.load == Load(running=0, waiting=1, cache_used=0.25, cache_hits=0.25)
        assert report.lacks == {Skill.EMBED, Skill.RERANK}
        assert not vllm.bodies(CHAT)  # somebody waits: it has something to do
        assert await engine.count(CHAT, b'{"model": "org/a", "messages": [{"role": "user", "content": "a b c"}]}') == 3
        assert await engine.count("/v1/completions", b'{"model": "org/a", "prompt": ["a", "a b"]}') == 2
        vllm.healthy = False
        await look(engine)
        assert (await look(engine)).state is State.DOWN


async def test_vllm_that_produces_nothing_is_stuck() -> None:
    async with client("vllm", vllm := Vllm(stuck=True)) as engine:
        assert isinstance(engine, VllmServer)
        assert (await look(engine)).state is State.READY  # it is at work
        report = await engine._describe()
        with pytest.raises(Exception, match="did not produce a token"):
            await engine._prove(report)
        assert vllm.bodies(CHAT)[0]["max_tokens"] == 1


async def test_vllm_tokenises_in_the_words_of_llama_cpp() -> None:
    async with client("vllm", vllm := Vllm()) as engine:
        async with engine.send("/tokenize", b'{"model": "org/a", "content": "a b"}', LIMITS) as answer:
            assert json.loads(await answer.read())["tokens"] == [0, 1]
        assert vllm.bodies("/tokenize") == [{"model": "org/a", "prompt": "a b"}]
        async with engine.send("/detokenize", b'{"tokens": [1]}', LIMITS) as answer:
            assert json.loads(await answer.read()) == {"content": "Hi"}


async def test_a_cloud_is_asked_for_its_list_only_and_seldom() -> None:
    async with client("openai", openai := OpenAi()) as engine:
        assert engine.pause_s == 5
        report = await look(engine)
        assert (report.models, report.context_of("gpt-small")) == (("gpt-small", "gpt-large"), 8192)
        assert engine.pause_s == 30
        assert [(method, path) for method, path, _ in openai.seen] == [("GET", "/v1/models")]
    async with client("openai", OpenAi(), allowed=("gpt-large",)) as engine:
        assert (await look(engine)).models == ("gpt-large",)
    async with client("openai", OpenAi(), allowed=("other",)) as engine:
        assert "none of the models" in (await look(engine)).reason


async def test_what_a_cloud_says_of_our_key_is_for_nobody() -> None:
    async with client("openai", OpenAi(), key="sk-wrong") as engine:
        assert (await look(engine)).reason == "it refuses the engine key"
        async with engine.send(CHAT, b"{}", LIMITS) as answer:
            assert answer.status == 401
            assert b"sk-wrong" not in await answer.read()


async def test_an_anthropic_service_tells_the_context_of_its_models_and_counts() -> None:
    async with client("anthropic", service := Anthropic()) as engine:
        report = await look(engine)
        assert (report.models, report.context_of("claude-test")) == (("claude-test",), 200000)
        chat = {"model": "claude-test", "messages": [{"role": "user", "content": "Hi"}], "temperature": 1, "stop": "x"}
        assert await engine.count(CHAT, json.dumps(chat).encode()) == 42
        (asked,) = service.bodies("/v1/messages/count_tokens")
        assert asked.keys() == {"model", "messages"}
        async with engine.send("/v1/embeddings", b"{}", LIMITS) as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("service", "engine"),
    [
        (Ollama(), "ollama"),
        (LmStudio(), "lmstudio"),
        (LmStudio(old=True), "lmstudio"),
        (Vllm(), "vllm"),
        (OpenAi(), "openai"),
        (Anthropic(), "anthropic"),
    ],
)
async def test_what_kind_of_server_it_is_is_found_out(service: Service, engine: str) -> None:
    async with running(service), client_session() as session:
        assert await detect(service.url, session, service.key) == engine


async def test_what_cannot_be_found_out_is_said() -> None:
    async with client_session() as session, running(OpenAi()) as service, fake_engine() as llama:
        with pytest.raises(UnknownServerError, match="nothing answers"):
            await detect(f"http://127.0.0.1:{free_port()}", session, "")
        with pytest.raises(UnknownServerError, match="wants a key"):
            await detect(service.url, session, "wrong")
        assert await detect(llama.url, session, "engine-key") == "llama.cpp"
        assert await detect("https://api.anthropic.com", session, "") == "anthropic"


async def test_a_redirect_takes_no_key_elsewhere() -> None:
    class Moved(OpenAi):
        def refusal(self, _request: object) -> None:
            raise aiohttp.web.HTTPTemporaryRedirect("http://127.0.0.1:9/elsewhere")

    async with client("openai", Moved(), key=KEY) as engine:
        async with engine.send(CHAT, b"{}", LIMITS) as answer:
            assert answer.status == 307
        assert (await look(engine)).state is State.DOWN


def test_metrics_are_read_whatever_stands_in_their_labels() -> None:
    text = b'# TYPE a gauge\na{x="} 7",y="{"} 3 1700000000\nb 2.5\nb{z="1"} 1\nnonsense\nc\n'
    assert read_samples(text) == {"a": [3.0], "b": [2.5, 1.0]}
    assert load_of(b"vllm:gpu_cache_usage_perc 0.5\n") == Load(cache_used=0.5)


def test_numbers_that_are_none_are_passed_over() -> None:
    assert load_of(b"vllm:num_requests_running +Inf\nvllm:num_requests_waiting NaN\n") == Load()


async def test_what_a_client_wrote_in_another_shape_is_not_counted() -> None:
    calls = [{"function": {"name": "f", "arguments": "no JSON"}}]
    chat = {"model": "m", "messages": [{"role": "assistant", "tool_calls": calls}]}
    async with client("ollama", Ollama()) as engine:
        assert await engine.count(CHAT, json.dumps(chat).encode()) is None


async def test_an_answer_that_is_no_message_is_the_services_fault() -> None:
    question = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

    async def other(_request: web.Request) -> web.Response:
        return web.json_response({"content": "Hi"})

    app = web.Application()
    app.router.add_post("/v1/messages", other)
    async with serving(app) as url, client_session() as session:
        engine = connect("anthropic", url, session, lambda: "k", PACE)
        async with engine.send(CHAT, json.dumps(question).encode(), LIMITS) as answer:
            assert answer.status == 502
