"""What clients see when model servers fail. The servers are scripted fakes (tests/support/fakes.py)."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from roost.engines.llamacpp import LlamaServer
from roost.gateway.app import client_session
from roost.gateway.endpoints.endpoint import Endpoint, Member
from roost.gateway.request import relay as relay_module
from roost.gateway.request import serving as serving_module
from roost.gateway.request.exchange import Exchange
from roost.gateway.request.relay import UnansweredError, relay
from tests.support.fakes import WORDS, FakeEngine, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually

CHAT = "/v1/chat/completions"
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
ANSWER = "".join(WORDS)


def serving(folder: Path, *engines: FakeEngine, **more: object) -> AbstractAsyncContextManager[Served]:
    """Run the gateway in front of these engines; `more` are settings."""
    urls = ",".join(engine.url for engine in engines)
    return served(quick_settings(folder, static_endpoints=urls, **more))


async def ask(gateway: Served, **more: object) -> tuple[int, dict[str, object], dict[str, str]]:
    """Ask for a plain answer; returns status, document and headers in lower case."""
    async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, **more}) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, await answer.json(), headers


async def stream(gateway: Served, **more: object) -> list[dict[str, object]]:
    """Ask for a streamed answer; returns its events without the closing one."""
    async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True, **more}) as answer:
        assert answer.status == 200
        text = (await answer.read()).decode()
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(event) for event in events if event != "[DONE]"]


def text_of(document: dict[str, object]) -> str:
    """Return what a plain answer says."""
    choices = document["choices"]
    assert isinstance(choices, list)
    return str(choices[0]["message"]["content"])


async def metric(gateway: Served, name: str, **labels: str) -> float:
    """Return the value of one sample of /metrics, 0 if there is none."""
    async with gateway.client.get(gateway.url + "/metrics") as answer:
        text = await answer.text()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


async def test_an_answer_carries_names_and_is_counted(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()
        status, document, headers = await ask(gateway, model="auto", made_up=[1.5, None])
        assert (status, text_of(document), document["model"]) == (200, ANSWER, "tiny")
        assert headers["x-roost-model"] == "tiny"
        assert headers["x-roost-endpoint"] == f"main@127.0.0.1:{engine.port}"
        assert engine.chats[-1] == {**QUESTION, "made_up": [1.5, None]}
        await counted(gateway, len(WORDS), "roost_tokens_total", model="tiny", direction="out")
        assert await metric(gateway, "roost_requests_total", model="tiny", status="200") == 1
        assert await metric(gateway, "roost_endpoints", slot="main", state="ready") == 1
        assert await metric(gateway, "roost_in_flight") == 0


async def counted(gateway: Served, wanted: float, name: str, **labels: str) -> None:
    """Wait until a sample of /metrics has a value: counting comes after the answer."""

    async def there() -> bool:
        return await metric(gateway, name, **labels) == wanted

    await eventually(there, 5, f"{name} to be {wanted}")


def code_of(document: dict[str, object]) -> tuple[str, str]:
    """Return code and message of an error."""
    error = document["error"]
    assert isinstance(error, dict)
    return str(error["code"]), str(error["message"])


async def test_a_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    async with fake_engine(mode="slow") as engine, serving(tmp_path, engine) as gateway:
        await gateway.ready()
        async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True}) as answer:
            first = await answer.content.readuntil(b"\n\n")
            assert json.loads(first[6:])["choices"][0]["delta"] == {"content": "The"}
            engine.go.set()
            rest = await answer.read()
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_refused_connection_goes_to_the_next_endpoint(tmp_path: Path) -> None:
    async with fake_engine() as one, fake_engine() as two:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url}", probe_every_s=60)
        async with served(settings) as gateway:
            await gateway.ready(2)
            await min(one, two, key=lambda engine: str(engine.port)).stop()  # the one that is chosen first
            for _ in range(4):
                status, document, _ = await ask(gateway)
                assert (status, text_of(document)) == (200, ANSWER)
            assert sorted(gateway.states()) == ["down", "ready"]
            assert await metric(gateway, "roost_failovers_total") >= 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_that_starts_to_load_is_left_and_waited_for(tmp_path: Path, *, streamed: bool) -> None:
    async with fake_engine() as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, probe_every_s=60)
        async with served(settings) as gateway:
            await gateway.ready()
            engine.mode = "loading"
            asking = asyncio.create_task(stream(gateway) if streamed else ask(gateway))
            await eventually(lambda: gateway.states() == ["loading"], 5, "the 503 to be believed")
            assert not asking.done()
            engine.mode = "ready"
            assert await asyncio.wait_for(asking, 5)
            assert len(engine.chats) == 1


async def test_waiting_ends(tmp_path: Path) -> None:
    async with fake_engine(mode="loading") as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, wait_s=0.3)
        async with served(settings) as gateway:
            views = gateway.gateway.registry.views  # "loading" it is before anybody has looked, too
            await eventually(lambda: "loading its model" in views()[0].reason, 10, "the first probe")
            status, document, headers = await ask(gateway, model="auto")
            assert status == 503
            assert headers["retry-after"] == "5"
            code, message = code_of(document)
            assert code == "model_unavailable"
            assert "loading its model" in message


async def test_waiting_ends_where_a_server_refuses_again_and_again(tmp_path: Path) -> None:
    """Its health and our canary say that it is ready, and each request of a client that it is not."""
    busy = (503, {"error": {"message": "no"}})
    async with fake_engine(mode="error", error=busy) as engine, serving(tmp_path, engine, wait_s=0.3) as gateway:
        await gateway.ready()
        status, document, _ = await asyncio.wait_for(ask(gateway), 10)
        assert (status, code_of(document)[0]) == (503, "model_unavailable")


async def test_a_model_may_have_any_name(tmp_path: Path) -> None:
    refusal = (400, {"error": {"message": "no"}})
    async with fake_engine(model="模型", mode="error", error=refusal) as engine, serving(tmp_path, engine) as gateway:
        await gateway.ready()
        assert (await ask(gateway, model="auto"))[0] == 400
        engine.mode = "ready"
        assert (await ask(gateway, model="auto"))[0] == 200


async def test_a_server_that_dies_before_its_answer_is_replaced(tmp_path: Path) -> None:
    async with fake_engine(mode="drop") as one, fake_engine() as two:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url}")
        async with served(settings) as gateway:
            await gateway.ready(2)
            for _ in range(3):
                status, document, _ = await ask(gateway)
                assert (status, text_of(document)) == (200, ANSWER)
            assert await stream(gateway)


async def test_a_request_that_kills_servers_is_not_tried_on_all_of_them(tmp_path: Path) -> None:
    async with fake_engine(mode="drop") as one, fake_engine(mode="drop") as two, fake_engine(mode="drop") as three:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url},{three.url}")
        async with served(settings) as gateway:
            await gateway.ready(3)
            status, document, _ = await ask(gateway)
            assert status == 502
            assert code_of(document)[0] == "engine_failed"
            assert len(one.chats) + len(two.chats) + len(three.chats) == 2


async def test_servers_that_die_long_after_they_got_a_request_are_not_held_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "EARLY_S", 0.0)  # as if each had worked for long
    async with fake_engine(mode="drop") as one, fake_engine(mode="drop") as two, fake_engine(mode="drop") as three:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url},{three.url}", wait_s=0.5)
        async with served(settings) as gateway:
            await gateway.ready(3)
            assert (await ask(gateway))[0] in {502, 503}  # its patience may end before the number does
            asked = len(one.chats) + len(two.chats) + len(three.chats)
            # One that seems to have closed a kept connection before it was asked has not died: once for each of three.
            assert serving_module.DEATHS_ALLOWED < asked <= serving_module.LATE_DEATHS_ALLOWED + 3


async def test_a_stream_that_breaks_ends_with_an_error_that_parses(tmp_path: Path) -> None:
    async with fake_engine(mode="die-mid-event") as engine, serving(tmp_path, engine) as gateway:
        await gateway.ready()
        events = await stream(gateway)
        assert [_word(event) for event in events[:-1]] == list(WORDS[:2])
        assert code_of(events[-1])[0] == "stream_interrupted"
        await counted(gateway, 1, "roost_requests_total", status="502")


def _word(event: dict[str, object]) -> object:
    choices = event["choices"]
    assert isinstance(choices, list)
    return choices[0]["delta"]["content"]


async def test_a_stuck_server_is_found_by_the_canary_and_what_waits_there_moves_on(tmp_path: Path) -> None:
    async with fake_engine() as one, fake_engine() as two:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url}", canary_every_s=0.2)
        async with served(settings) as gateway:
            await gateway.ready(2)
            one.mode = two.mode = "stuck"
            asking = asyncio.create_task(ask(gateway))
            await eventually(lambda: len(one.chats) + len(two.chats) == 1, 5, "the request to hang")
            (two if one.chats else one).mode = "ready"
            status, document, _ = await asyncio.wait_for(asking, 10)
            assert (status, text_of(document)) == (200, ANSWER)


async def test_a_busy_server_is_not_taken_for_a_stuck_one(tmp_path: Path) -> None:
    async with fake_engine(mode="slow", all_slots_busy=True) as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, canary_every_s=0.05, canary_timeout_s=30)
        async with served(settings) as gateway:
            await gateway.ready()
            asking = asyncio.create_task(stream(gateway))
            await eventually(lambda: len(engine.chats) == 1, 5, "the stream to begin")
            probes = engine.canaries
            await gateway.gateway.registry.changed(0.6)
            assert gateway.states() == ["ready"]
            assert engine.canaries == probes == 0
            engine.go.set()
            assert len(await asking) == len(WORDS)


async def test_a_server_that_moves_is_followed(tmp_path: Path) -> None:
    engine = FakeEngine()
    await engine.start()
    settings = quick_settings(tmp_path, static_endpoints=engine.url)
    async with served(settings) as gateway:
        await gateway.ready()
        await engine.stop()
        await eventually(lambda: gateway.states() == ["down"], 5, "it to be gone")
        asking = asyncio.create_task(ask(gateway))
        await engine.start(engine.port)
        status, _, _ = await asyncio.wait_for(asking, 5)
        assert status == 200
    await engine.stop()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_ends_the_work_upstream(tmp_path: Path, *, streamed: bool) -> None:
    async with fake_engine(mode="slow" if streamed else "stuck") as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, canary_timeout_s=60)
        engine.mode = "ready"
        async with served(settings) as gateway:
            await gateway.ready()
            engine.mode = "slow" if streamed else "stuck"
            asking = asyncio.create_task(stream(gateway) if streamed else ask(gateway))
            await eventually(lambda: len(engine.chats) == 1, 5, "the request to arrive")
            endpoint = gateway.gateway.registry.endpoints()[0]
            assert endpoint.in_flight == 1
            asking.cancel()
            await eventually(lambda: endpoint.in_flight == 0, 5, "the request to be dropped")
            await counted(gateway, 1, "roost_requests_total", status="499")
            if streamed:
                await eventually(lambda: engine.left == 1, 5, "the model server to notice")


async def test_a_client_that_hangs_up_after_the_last_event_was_served(tmp_path: Path) -> None:
    async with fake_engine(mode="linger") as engine, serving(tmp_path, engine) as gateway:
        await gateway.ready()
        async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True}) as answer:
            await answer.content.readuntil(b"[DONE]\n\n")
            answer.close()
        await counted(gateway, 1, "roost_requests_total", status="200")


async def test_a_wrong_engine_key_is_not_the_clients_fault(tmp_path: Path) -> None:
    async with fake_engine() as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, probe_every_s=60)
        async with served(settings) as gateway:
            await gateway.ready()
            engine.key = "another"
            status, document, _ = await ask(gateway)
            assert status == 502
            assert "Invalid API Key" in code_of(document)[1]


async def test_an_engine_refusal_keeps_its_status(tmp_path: Path) -> None:
    refusal = (400, {"error": {"message": "too long", "type": "exceed_context_size_error"}})
    async with fake_engine(mode="error", error=refusal) as engine, serving(tmp_path, engine) as gateway:
        await gateway.ready()
        status, document, _ = await ask(gateway, stream=True)
        assert status == 400
        assert code_of(document)[0] == "context_length_exceeded"


async def test_requests_spread_over_the_endpoints(tmp_path: Path) -> None:
    async with fake_engine(mode="slow") as one, fake_engine(mode="slow") as two:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url}")
        async with served(settings) as gateway:
            await gateway.ready(2)
            asking = [asyncio.create_task(stream(gateway)) for _ in range(6)]
            await eventually(lambda: len(one.chats) + len(two.chats) == 4, 5, "all slots to be taken")
            assert len(one.chats) == len(two.chats) == 2  # of two slots each; the others wait in the gateway
            await eventually(lambda: gateway.gateway.balancer.waiting == 2, 5, "the others to wait")
            one.go.set()
            two.go.set()
            assert all([_word(event) for event in answer] == list(WORDS) for answer in await asyncio.gather(*asking))
            assert len(one.chats) + len(two.chats) == 6


async def test_wrong_requests_never_reach_an_engine(tmp_path: Path) -> None:
    async with fake_engine() as engine:
        settings = quick_settings(tmp_path, static_endpoints=engine.url, max_body_bytes=1000)
        async with served(settings) as gateway:
            await gateway.ready()
            for body, status in ((b"{", 400), (b"[" * 900, 400), (b"\xff\xfe", 400), (b"x" * 1001, 413)):
                async with gateway.client.post(gateway.url + CHAT, data=body) as answer:
                    assert answer.status == status
                    assert (await answer.json())["error"]["message"]
            async with gateway.client.get(gateway.url + CHAT) as answer:
                assert answer.status == 405
                assert (await answer.json())["error"]["message"]
            assert engine.chats == []


async def test_a_request_id_is_kept_if_it_is_harmless(tmp_path: Path) -> None:
    async with served(quick_settings(tmp_path)) as gateway:
        for given, kept in (("abc-1.2_3", True), ("a b", False), ("x" * 200, False)):
            headers = {"x-request-id": given}
            async with gateway.client.get(gateway.url + "/healthz", headers=headers) as answer:
                assert (answer.headers["x-request-id"] == given) is kept


async def test_fifty_streams_at_once_all_arrive_whole(tmp_path: Path) -> None:
    async with fake_engine() as one, fake_engine() as two:
        settings = quick_settings(tmp_path, static_endpoints=f"{one.url},{two.url}")
        async with served(settings) as gateway:
            await gateway.ready(2)
            answers = await asyncio.gather(*(stream(gateway) for _ in range(50)))
            assert all([_word(event) for event in answer] == list(WORDS) for answer in answers)


async def test_an_event_that_does_not_end_is_not_kept_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MOST_EVENT_BYTES", 1000)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"POST /v1/chat" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " + b"x" * 2000)
            await reader.read()
        writer.close()

    listening = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, client_session() as session:
        engine = LlamaServer(f"http://127.0.0.1:{port}", session, str)
        endpoint = Endpoint(Member("main", engine.base_url), engine)
        sent: list[object] = []

        async def send(message: object) -> None:
            sent.append(message)

        async def ask() -> None:
            async with engine.send(CHAT, b"{}", aiohttp.ClientTimeout()) as answer:
                await relay(endpoint, answer, Exchange("x"), send, lambda: None)

        with pytest.raises(UnansweredError, match="does not end"):
            await ask()
        assert not sent
