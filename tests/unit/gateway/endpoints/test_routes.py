"""`/roost/v1/endpoints` of a whole gateway, and requests that go to what was added."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from roost.engines.base import State
from roost.fleet.endpoint_list import Drain, EndpointDocument
from roost.gateway.settings import Settings
from tests.support.fakes import FakeNomad, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually, free_port
from tests.support.services import KEY, Anthropic, LmStudio, Ollama, OpenAi, Vllm, running

Json = dict[str, Any]
PATH = "/roost/v1/endpoints"


def settings(folder: Path, **more: object) -> Settings:
    return quick_settings(folder, **{"endpoints_file": folder / "endpoints.json", **more})


async def ask(gateway: Served, method: str, path: str, body: object = None) -> tuple[int, Json]:
    async with gateway.client.request(method, f"{gateway.url}{path}", json=body) as answer:
        return answer.status, await answer.json()


async def add(gateway: Served, name: str, url: str, **fields: object) -> Json:
    status, found = await ask(gateway, "POST", PATH, {"name": name, "url": url, **fields})
    assert status == 201, found
    return found


async def chat(gateway: Served, model: str) -> tuple[int, Json]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    return await ask(gateway, "POST", "/v1/chat/completions", body)


async def listed(gateway: Served) -> dict[str, Json]:
    _, found = await ask(gateway, "GET", PATH)
    return {entry["name"]: entry for entry in found["data"]}


async def ready(gateway: Served, name: str) -> Json:
    entry: Json = {}
    async with asyncio.timeout(10):
        while entry.get("state") != "ready":
            entry = (await listed(gateway)).get(name, {})
            await asyncio.sleep(0.02)
    return entry


async def test_what_is_added_answers_and_is_gone_when_it_is_removed(tmp_path: Path) -> None:
    async with running(Ollama()) as ollama, served(settings(tmp_path)) as gateway:
        made = await add(gateway, "box", ollama.url)
        assert (made["engine"], made["slot"], made["auto"], made["applied"]) == ("ollama", "box", True, True)
        entry = await ready(gateway, "box")
        assert entry["source"] == "by hand"
        states = {model["id"]: (model["state"], model["context"]) for model in entry["models"]}
        assert states["qwen3:8b"] == ("ready", 8192)
        assert states["llama3.2:1b"] == ("cold", None)
        status, answer = await chat(gateway, "qwen3:8b")
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Paris it is")
        assert (await chat(gateway, "box"))[1]["model"] == "qwen3:8b"
        status, refused = await chat(gateway, "all-minilm:22m")
        assert (status, refused["error"]["code"]) == (400, "model_not_able")
        _, models = await ask(gateway, "GET", "/v1/models/llama3.2:1b")
        assert (models["roost"]["state"], models["roost"]["context_most"]) == ("cold", 40960)
        assert models["roost"]["endpoints"][0]["source"] == "by hand"
        assert (await ask(gateway, "DELETE", "/roost/v1/endpoints/box"))[0] == 200
        assert (await chat(gateway, "box"))[0] in (404, 503)
        assert (await ask(gateway, "GET", "/roost/v1/endpoints/box"))[0] == 404


async def test_it_survives_a_restart_and_another_gateway_sees_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    file = tmp_path / "endpoints.json"
    async with running(LmStudio()) as studio:
        async with (
            served(settings(tmp_path)) as gateway,
            served(settings(tmp_path / "other", endpoints_file=file)) as other,
        ):
            await add(gateway, "studio", studio.url)
            assert (await ready(other, "studio"))["parallel"] == 4
            await ask(other, "POST", "/roost/v1/endpoints/studio/drain")
            await eventually(lambda: gateway.gateway.registry.views()[0].drained, 10, "the drain at the first one")
        async with served(settings(tmp_path)) as again:
            assert (await ready(again, "studio"))["drained"] is True


async def test_a_drained_endpoint_gets_nothing_until_it_is_undrained(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(settings(tmp_path, static_endpoints=engine.url, wait_s=0.3)) as gateway:
        await gateway.ready()
        name = gateway.gateway.registry.views()[0].id
        assert (await chat(gateway, "auto"))[0] == 200
        status, found = await ask(gateway, "POST", f"/roost/v1/endpoints/{name}/drain")
        assert (status, found["drained"], found["in_flight"]) == (200, True, 0)
        status, refused = await chat(gateway, "auto")
        assert (status, "drained" in refused["error"]["message"]) == (503, True)
        await ask(gateway, "POST", f"/roost/v1/endpoints/{name}/undrain")
        assert (await chat(gateway, "auto"))[0] == 200


async def test_a_job_is_drained_with_whichever_server_it_has_and_undrained_by_its_endpoint(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(settings(tmp_path, static_endpoints=engine.url, wait_s=0.3)) as gateway:
        await gateway.ready()
        view = gateway.gateway.registry.views()[0]
        endpoint = gateway.gateway.registry.get(view.id)
        assert endpoint is not None
        given = replace(endpoint.member, job="roost-model-main-two")
        gateway.gateway.registry.sync([given], given.source)
        document = EndpointDocument(revision=1, drains=(Drain(endpoint="roost-model-main-two"),))
        (tmp_path / "endpoints.json").write_text(document.text())
        await eventually(lambda: gateway.gateway.registry.views()[0].drained, 10, "the drain")
        assert [entry["state"] for entry in (await listed(gateway)).values()] == ["ready"], (
            "no second entry that is gone"
        )
        await ask(gateway, "POST", f"/roost/v1/endpoints/{view.id}/undrain")
        assert (await chat(gateway, "auto"))[0] == 200


async def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    async with running(Vllm()) as vllm, served(settings(tmp_path)) as gateway:
        status, found = await ask(gateway, "POST", "/roost/v1/endpoints?dry_run=true", {"name": "box", "url": vllm.url})
        assert (status, found["engine"], found["applied"]) == (200, "vllm", False)
        assert not await listed(gateway)
        await add(gateway, "box", vllm.url)
        assert (await ask(gateway, "DELETE", "/roost/v1/endpoints/box?dry_run=true"))[1]["applied"] is False
        assert (await ask(gateway, "POST", "/roost/v1/endpoints/box/drain?dry_run=true"))[0] == 200
        assert (await ready(gateway, "box"))["drained"] is False


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "http://192.0.2.7:11434"}, "http beyond this machine"),
        ({"url": "ftp://box"}, "no URL of a server"),
        ({"url": "https://user:word@box"}, "holds a user"),
        ({"url": "https://box/?key=1"}, "query"),
        ({"url": "http://169.254.169.254", "allow_http": True}, "no address of a model server"),
        ({"name": "main"}, "name of a role"),
        ({"name": "Big Box"}, "not valid: name: should be made of"),
        ({"engine": "magic"}, "not valid: engine: should be"),
        ({"slot": "main", "engine": "openai"}, "did not ask for it"),
        ({"keys": "x"}, "not valid: keys: is not known"),
        ({"ca": "not PEM"}, "no PEM"),
        ({"key": "sk-\nx"}, "no key has"),
    ],
)
async def test_what_is_not_valid_is_refused_without_its_key(tmp_path: Path, fields: Json, why: str) -> None:
    body = {"name": "box", "url": "https://127.0.0.1:9", "engine": "vllm", "key": KEY, **fields}
    async with served(settings(tmp_path)) as gateway:
        status, found = await ask(gateway, "POST", PATH, body)
        assert (status, why in found["error"]["message"]) == (400, True), found
        assert KEY not in json.dumps(found)
        assert not (tmp_path / "endpoints.json").exists()


async def test_a_name_is_given_once_and_what_is_not_there_is_404(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()
        await add(gateway, "box", "https://127.0.0.1:9", engine="vllm")
        again = {"name": "box", "url": "https://127.0.0.1:8", "engine": "vllm"}
        assert (await ask(gateway, "POST", PATH, again))[0] == 409
        assert (await ask(gateway, "POST", PATH, again | {"replace": True}))[0] == 201
        assert (await ask(gateway, "POST", PATH, again | {"name": "tiny"}))[0] == 409  # a model's name
        for verb in (
            "DELETE /roost/v1/endpoints/no",
            "POST /roost/v1/endpoints/no/drain",
            "POST /roost/v1/endpoints/no/test",
        ):
            method, path = verb.split()
            status, found = await ask(gateway, method, path)
            assert (status, found["error"]["code"]) == (404, "endpoint_not_found")
        name = gateway.gateway.registry.views()[1].id
        assert (await ask(gateway, "DELETE", f"/roost/v1/endpoints/{name}"))[0] == 400  # it was not added by hand
        assert (await ask(gateway, "POST", PATH, [1]))[0] == 400


async def test_a_cloud_gets_only_what_is_meant_for_it_and_its_key_is_nowhere(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with (
            running(OpenAi(models=("tiny", "gpt-large"))) as cloud,
            fake_engine() as engine,
            served(settings(tmp_path, static_endpoints=engine.url)) as gateway,
        ):
            await gateway.ready()
            made = await add(gateway, "cloud", cloud.url, key=KEY)
            assert (made["engine"], made["auto"], made["added"]["key"]) == ("openai", False, True)
            entry = await ready(gateway, "cloud")
            for model in ("auto", "tiny", "main"):
                assert (await chat(gateway, model))[0] == 200
            assert not cloud.bodies("/v1/chat/completions")
            assert (await chat(gateway, "gpt-large"))[0] == 200
            assert (await chat(gateway, "cloud"))[0] == 200
            assert [body["model"] for body in cloud.bodies("/v1/chat/completions")] == ["gpt-large", "tiny"]
            engine.mode = "loading"
            await eventually(lambda: gateway.states().count("loading") == 1, 10, "the fleet's own to be gone")
            body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
            request = asyncio.create_task(ask(gateway, "POST", "/v1/chat/completions", body))
            await asyncio.sleep(0)
            engine.mode = "ready"
            assert (await request)[0] == 200
            assert len(cloud.bodies("/v1/chat/completions")) == 2
            cloud.key = "another-key-than-ours"
            status, refused = await chat(gateway, "gpt-large")
            assert status == 502
            assert KEY not in json.dumps([entry, made, refused, await listed(gateway)])
    assert KEY not in json.dumps(logs, default=str)
    assert KEY in (tmp_path / "endpoints.json").read_text()
    assert (tmp_path / "endpoints.json").stat().st_mode & 0o077 == 0


async def test_an_endpoint_is_tried_before_it_is_added(tmp_path: Path) -> None:
    async with running(Vllm(running=0)) as vllm, running(Anthropic()) as cloud, served(settings(tmp_path)) as gateway:
        status, found = await ask(gateway, "POST", f"{PATH}/-/test", {"url": vllm.url})
        assert (status, found["ok"], found["engine"], found["answered"]) == (200, True, "vllm", True)
        assert found["answer_ms"] > 0
        _, found = await ask(gateway, "POST", f"{PATH}/-/test", {"url": cloud.url, "key": KEY, "ask": False})
        assert (found["ok"], found["engine"], found["answered"]) == (True, "anthropic", None)
        gone = {"url": f"http://127.0.0.1:{free_port()}", "engine": "ollama"}
        _, found = await ask(gateway, "POST", f"{PATH}/-/test", gone)
        assert (found["ok"], found["state"], "nothing answers" in found["reason"]) == (False, "down", True)
        status, found = await ask(gateway, "POST", f"{PATH}/-/test", {"url": gone["url"]})
        assert (status, found["error"]["param"]) == (400, "engine")
        assert not await listed(gateway)


async def test_without_a_place_to_keep_them_nothing_is_added(tmp_path: Path) -> None:
    async with served(quick_settings(tmp_path)) as gateway:
        body = {"name": "box", "url": "https://127.0.0.1:9", "engine": "vllm"}
        status, found = await ask(gateway, "POST", PATH, body)
        assert (status, "ROOST_ENDPOINTS_FILE" in found["error"]["message"]) == (400, True)


async def test_in_nomad_it_is_kept_in_the_variable_and_conflicts_are_tried_again(tmp_path: Path) -> None:
    nomad, variable = FakeNomad(tmp_path / "api.sock"), "nomad/jobs/roost-agent/agent/agent"
    await nomad.start()
    given = {"nomad_socket": nomad.socket, "NOMAD_TOKEN": nomad.token, "endpoints_variable": variable}
    file = tmp_path / "endpoints.json"
    try:
        async with running(Vllm()) as vllm, served(settings(tmp_path, **given)) as gateway:
            await asyncio.gather(*(add(gateway, f"box-{n}", vllm.url, engine="vllm") for n in range(4)))
            assert {*(await listed(gateway))} == {"box-0", "box-1", "box-2", "box-3"}  # before Nomad rendered anything
            kept = json.loads(nomad.variables[variable][1]["endpoints"])
            assert (len(kept["endpoints"]), kept["revision"]) == (4, 4)
            file.write_text(json.dumps({"revision": 3}))  # rendered late: older than what we know
            gateway.gateway.hand.look()
            assert len(gateway.gateway.hand.document.endpoints) == 4
            file.write_text(json.dumps({**kept, "revision": 5, "endpoints": kept["endpoints"][:1]}))
            gateway.gateway.hand.look()
            assert {*(await listed(gateway))} == {"box-0"}
            nomad.refusal = "Permission denied"
            status, found = await ask(gateway, "DELETE", "/roost/v1/endpoints/box-0")
            assert (status, "cannot be kept" in found["error"]["message"]) == (400, True)
    finally:
        await nomad.stop()


async def test_it_is_down_within_one_check_and_back_when_it_is_back(tmp_path: Path) -> None:
    async with served(settings(tmp_path)) as gateway:
        async with running(LmStudio()) as studio:
            await add(gateway, "studio", studio.url)
            await ready(gateway, "studio")
        await eventually(lambda: gateway.states() == [State.DOWN.value], 10, "it to be down")
        assert (await listed(gateway))["studio"]["models"]  # what it serves stays known
        async with running(studio, studio.port):
            await ready(gateway, "studio")
            assert (await chat(gateway, "qwen3"))[0] == 200
