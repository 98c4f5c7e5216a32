"""Adapters, kept slots and a stuck process with a real `llama-server`; Nomad is scripted (tests/support/fakes.py)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tests.support.engine import MODEL, EngineProcess, llama_server, model_file
from tests.support.fakes import FakeNomad
from tests.support.gateway import Served, quick_settings, served
from tests.support.lora import write_adapter
from tests.support.net import eventually, free_port

JOB = "roost-model-main"
CHAT = "/v1/chat/completions"
CAPITAL = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
LONG = [{"role": "user", "content": "The keeper of the lighthouse counts the ships that pass by. " * 30 + "How many?"}]


@asynccontextmanager
async def gateway_over(folder: Path, nomad: FakeNomad, key_file: Path, **more: object) -> AsyncIterator[Served]:
    """Run the gateway with the engine's key, patient enough for a busy machine."""
    settings = quick_settings(
        folder,
        nomad_socket=nomad.socket,
        NOMAD_TOKEN=SecretStr(nomad.token),
        engine_key_file=key_file,
        canary_timeout_s=30,
        wait_s=60,
        **more,
    )
    await nomad.start()
    async with served(settings) as gateway:
        await eventually(lambda: "ready" in gateway.states(), 60, "the model server")
        yield gateway
    await nomad.stop()


async def ask(gateway: Served, messages: object = CAPITAL, model: str = "auto") -> dict[str, Any]:
    """Ask without chance, and return the whole answer."""
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 12}
    # The service closes a connection after 5 idle seconds, maybe just as we ask.
    async with gateway.client.post(gateway.url + CHAT, json=body, headers={"Connection": "close"}) as answer:
        document: dict[str, Any] = await answer.json()
        assert answer.status == 200, document
        return document | {"served": answer.headers["x-roost-model"]}


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


async def test_an_adapter_is_chosen_by_name_and_only_for_that_request(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "wild.gguf", model_file())
    nomad = FakeNomad(tmp_path / "api.sock")
    with llama_server(tmp_path, ["--lora", str(adapter), "--lora-init-without-apply"]) as engine:
        nomad.plan(JOB, 1, ("127.0.0.1", engine.port), f"model={MODEL}")
        async with gateway_over(tmp_path, nomad, engine.key_file) as gateway:
            async with gateway.client.get(f"{gateway.url}/v1/models/{MODEL}") as answer:
                assert (await answer.json())["roost"]["adapters"] == [f"{MODEL}+wild"]
            plain = await ask(gateway)
            assert "Paris" in text_of(plain)
            changed = await ask(gateway, model=f"{MODEL}+wild")
            assert changed["served"] == f"{MODEL}+wild"
            assert text_of(changed) != text_of(plain)
            assert text_of(await ask(gateway, model="main+wild")) == text_of(changed)
            assert text_of(await ask(gateway)) == text_of(plain)
            body = {"model": f"{MODEL}+tame", "messages": CAPITAL}
            async with gateway.client.post(gateway.url + CHAT, json=body) as answer:
                assert answer.status == 404


async def test_what_a_conversation_computed_survives_a_stop(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    slots.mkdir()
    nomad, port = FakeNomad(tmp_path / "api.sock"), free_port()
    nomad.plan(JOB, 1, ("127.0.0.1", port), f"model={MODEL}", "keeps_slots=true")
    with ExitStack() as first, ExitStack() as second:
        engine = first.enter_context(llama_server(tmp_path, ["--slot-save-path", f"{slots}/"], port))
        async with gateway_over(tmp_path, nomad, engine.key_file, idle_stop_s=2) as gateway:
            tokens = (await ask(gateway, LONG))["usage"]["prompt_tokens"]
            await eventually(lambda: nomad.scaled == [(JOB, 0)], 30, "the idle server to be stopped")
            await asyncio.to_thread(first.close)
            await asyncio.to_thread(
                second.enter_context, llama_server(tmp_path, ["--slot-save-path", f"{slots}/"], port)
            )
            again = await ask(gateway, LONG)  # starts it
            assert nomad.scaled[1] == (JOB, 1)
            assert again["usage"]["prompt_tokens"] == tokens
            assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == tokens - 1
            assert again["timings"]["prompt_n"] == 1


def stop_process(engine: EngineProcess) -> None:
    """Freeze a process: the kernel still accepts connections for it."""
    os.kill(engine.process.pid, signal.SIGSTOP)


async def test_a_frozen_server_is_found_left_and_replaced(tmp_path: Path) -> None:
    nomad = FakeNomad(tmp_path / "api.sock")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with llama_server(one) as frozen, llama_server(two) as sound:
        nomad.plan(JOB, 1, ("127.0.0.1", frozen.port), f"model={MODEL}")
        nomad.set(JOB, ("127.0.0.1", frozen.port), ("127.0.0.1", sound.port))
        more = {"health_timeout_s": 5.0, "stuck_restart_s": 0.5}
        async with gateway_over(tmp_path, nomad, frozen.key_file, **more) as gateway:
            await eventually(lambda: gateway.states().count("ready") == 2, 60, "both model servers")
            try:
                stop_process(frozen)
                answers = await asyncio.gather(*(ask(gateway) for _ in range(4)))  # two of them begin at the frozen one
                assert {text_of(answer) for answer in answers} == {"The capital of France is Paris."}
                assert sorted(gateway.states()) == ["down", "ready"]
                await eventually(lambda: nomad.stopped_allocations == [f"allocation of {JOB}"], 60, "the replacement")
            finally:
                os.kill(frozen.process.pid, signal.SIGCONT)
