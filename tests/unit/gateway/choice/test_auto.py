"""`auto` over HTTP, in front of scripted model servers."""

from __future__ import annotations

from pathlib import Path

from tests.unit.gateway.choice.fleet import fleet
from tests.unit.gateway.test_proxy_faults import metric

HARD = "Analyse and compare these designs, justify the trade-offs step by step:\n- one\n- two\n- three\n- four"


async def test_light_and_hard_requests_go_to_different_models(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", "specialist") as site:
        status, model, header = await site.ask("Hi")
        assert (status, model) == (200, "tiny")
        assert header.startswith("slot=router; reason=light; level=light; confidence=")
        assert (await site.ask(HARD))[:2] == (200, "big")
        assert (await site.ask("Compare two phones for me."))[:2] == (200, "mid")
        assert await site.ask("Hi", model="main") == (200, "mid", "")  # explicit names stay
        assert await metric(site.gateway, "roost_route_decisions_total", model="tiny", reason="light") == 1
        assert await metric(site.gateway, "roost_route_seconds_count") == 3


async def test_with_one_model_auto_is_what_it_was(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main") as site:
        assert await site.ask(HARD) == (200, "mid", "slot=main; reason=only; level=heavy")
        assert site.engines["main"].chats[-1]["model"] == "mid"


async def test_a_picture_goes_to_a_model_that_sees(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "vision") as site:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        content = [{"type": "text", "text": "What is it?"}, picture]
        found = await site.ask("", messages=[{"role": "user", "content": content}])
        assert found[:2] == (200, "vision")
        assert "reason=vision" in found[2]


async def test_what_was_chosen_can_be_read_but_not_what_was_written(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router") as site:
        await site.ask("Hi Zaphod")
        await site.ask(HARD)
        newest, oldest = await site.decisions()
        assert [oldest[name] for name in ("slot", "reason", "answered_by", "status")] == [
            "router", "light", "tiny", 200,
        ]  # fmt: skip
        assert (newest["level"], newest["key"], newest["kind"]) == ("heavy", "admin", "chat")
        assert "Zaphod" not in str(oldest)
        _, document = await site.get("/roost/v1/decisions?limit=1")
        assert document["data"] == [newest]
        assert (await site.get("/roost/v1/decisions?limit=0"))[0] == 400


async def test_a_decision_is_explained_without_being_made(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router") as site:
        url = site.gateway.url + "/roost/v1/explain"
        async with site.gateway.client.post(url, json={"prompt": "Hi"}) as answer:
            document = await answer.json()
        assert (document["slot"], document["reason"], document["level"]) == ("router", "light", "light")
        assert [one["slot"] for one in document["candidates"]] == ["main", "router"]
        assert await site.decisions() == []
        async with site.gateway.client.post(url, json={}) as answer:
            assert answer.status == 400


async def test_the_site_can_have_auto_be_the_main_slot(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", auto_choice=False) as site:
        assert await site.ask("Hi") == (200, "mid", "")


async def test_an_alias_of_auto_is_a_choice_too(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", model_aliases={"gpt-4o": "auto"}) as site:
        assert (await site.ask("Hi", model="gpt-4o"))[1] == "tiny"


async def test_where_auto_is_an_alias_there_is_no_choice(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", model_aliases={"auto": "main"}) as site:
        assert await site.ask("Hi") == (200, "mid", "")


async def test_a_chosen_model_that_dies_leaves_the_request_to_main(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", probe_every_s=60) as site:
        await site.engines["router"].stop()
        status, model, header = await site.ask("Hi")
        assert (status, model) == (200, "mid")
        assert header.startswith("slot=main; reason=left; level=light")
        assert (await site.decisions())[0]["answered_by"] == "mid"


async def test_what_the_router_is_sure_of_goes_to_the_expert(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "coding") as site:
        status, model, header = await site.ask("Write a Rust function that reverses a linked list, with unit tests.")
        assert (status, model) == (200, "code")
        assert header.startswith("slot=coding; reason=expert; level=")
        assert "confidence=" in header
        assert (await site.ask("Write a birthday poem for my grandmother."))[1] == "mid"
        newest = (await site.decisions())[0]
        assert newest["probabilities"]
        assert (await site.get("/roost/v1/router"))[1]["origin"] == "shipped"
