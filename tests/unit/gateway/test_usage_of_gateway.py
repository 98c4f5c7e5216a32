"""Usage through a whole gateway: who sees it, what is counted of streams and of failures, and what a kill loses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from roost.gateway.account.usage import (
    Price,
    day_of,
)
from tests.support.fakes import USAGE, WORDS, fake_engine
from tests.support.gateway import Served, quick_settings, served
from tests.support.killed_usage import LAST, kill_gateways
from tests.support.net import eventually
from tests.unit.gateway.test_access import key, write_document
from tests.unit.gateway.test_limits import chat
from tests.unit.gateway.test_proxy_faults import CHAT, QUESTION, metric

pytestmark = pytest.mark.usefixtures("noon")


async def asked(gateway: Served, query: str = "", who: str = "") -> list[dict[str, object]]:
    """Ask for usage; returns its rows."""
    headers = {"Authorization": f"Bearer {who}"} if who else {}
    async with gateway.client.get(f"{gateway.url}/v1/usage{query}", headers=headers) as answer:
        assert answer.status == 200
        document = await answer.json()
    data = document["data"]
    assert isinstance(data, list)
    return data


async def test_usage_is_seen_by_its_owner_and_all_of_it_by_an_administrator(tmp_path: Path) -> None:
    prices = {"tiny": Price(input=1_000_000, output=10)}
    document = write_document(tmp_path, key("alice"), key("bob"))
    async with (
        fake_engine() as engine,
        served(
            quick_settings(
                tmp_path,
                static_endpoints=engine.url,
                keys_file=document,
                usage_prices=prices,
                usage_watts=100.0,
                usage_currency="EUR",
            )
        ) as gateway,
    ):
        await gateway.ready()
        for who, stream in (("alice", True), ("alice", False), ("bob", False)):
            options = {"stream_options": {"include_usage": True}} if stream else {}
            assert (await chat(gateway, who, stream=stream, **options))[0] == 200
        rows = {str(row["key"]): row for row in await asked(gateway)}
        assert {name: row["requests"] for name, row in rows.items()} == {"alice": 2, "bob": 1}
        alice = rows["alice"]
        assert alice["prompt_tokens"] == 2 * USAGE["prompt_tokens"]
        assert alice["completion_tokens"] == 2 * USAGE["completion_tokens"]
        assert alice["cost"] == pytest.approx(2 * (27 + 7 * 10 / 1e6))
        assert alice["estimated"] == 0
        assert float(str(alice["energy_wh"])) > 0
        assert [row["key"] for row in await asked(gateway, who="bob")] == ["bob"]
        today = day_of(time.time())
        (row,) = await asked(gateway, f"?by=day,model&since={today}&until={today}", who="alice")
        assert (row["day"], row["model"], row["requests"]) == (today, "tiny", 2)
        assert await asked(gateway, "?until=2000-01-01") == []
        for wrong in ("?by=colour", "?since=yesterday"):
            async with gateway.client.get(f"{gateway.url}/v1/usage{wrong}") as answer:
                assert answer.status == 400


async def test_who_leaves_pays_for_what_passed_by(tmp_path: Path) -> None:
    async with (
        fake_engine(mode="slow") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway,
    ):
        await gateway.ready()
        async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True}) as answer:
            await answer.content.readany()
        await eventually(lambda: engine.left == 1, 5, "the client to be gone")
        await eventually(lambda: bool(gateway.gateway.meter.accountant.spent("admin").tokens_day), 5, "usage")
        (row,) = await asked(gateway)
    assert (row["requests"], row["failed"], row["estimated"], row["completion_tokens"]) == (1, 1, 1, 1)
    assert int(str(row["prompt_tokens"])) > 0


async def test_a_stream_without_usage_is_counted_by_its_events(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()
        await chat(gateway, "", stream=True)
        async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "stream": True}) as answer:
            await answer.read()
        (row,) = await asked(gateway)
    assert (row["requests"], row["estimated"]) == (1, 1)
    assert row["completion_tokens"] in (len(WORDS), len(WORDS) + 1)


async def test_a_stream_is_counted_before_its_last_event_goes_out(tmp_path: Path) -> None:
    async with (
        fake_engine(mode="linger") as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway,
    ):
        await gateway.ready()
        body = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
        async with gateway.client.post(gateway.url + CHAT, json=body) as answer:
            read = b""
            while not read.endswith(LAST):
                read += await answer.content.readany()
            assert gateway.gateway.meter.accountant.spent("admin").tokens_day == USAGE["total_tokens"]
            engine.go.set()


async def test_what_came_to_no_model_is_no_usage(tmp_path: Path) -> None:
    async with fake_engine() as engine, served(quick_settings(tmp_path, static_endpoints=engine.url)) as gateway:
        await gateway.ready()
        async with gateway.client.post(gateway.url + CHAT, json={**QUESTION, "model": "none"}) as answer:
            assert answer.status == 404
        assert await asked(gateway) == []


async def test_failures_to_write_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    state.mkdir()
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, state_dir=state)) as gateway,
    ):
        await gateway.ready()

        def fail(_text: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(gateway.gateway.meter.accountant._spool, "append", fail)
        async with gateway.client.post(gateway.url + CHAT, json=QUESTION) as answer:
            assert answer.status == 200  # inference goes on
        assert await metric(gateway, "roost_usage_not_written_total", where="spool") == 1
        assert [row["requests"] for row in await asked(gateway)] == [1]


async def test_kill_dash_nine_loses_no_acknowledged_request_and_invents_none(tmp_path: Path) -> None:
    found = await kill_gateways(3, tmp_path)
    assert found.kills == 3
    assert found.acknowledged > 20
    assert (found.lost, found.invented, found.wrong_tokens) == (0, 0, 0)
    assert found.counts == sorted(found.counts)
