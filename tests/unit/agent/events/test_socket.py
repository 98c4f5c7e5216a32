"""Events over WebSocket on a real socket: who may, what is said, lost connections, slow readers, the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from roost.agent.events import feed, stream
from roost.agent.events.feed import ID
from roost.agent.live import Live, Said, StoppingError
from roost.agent.service import Asker
from roost.agent.sessions.routes import PATH
from roost.cli.serve_agent import AgentDoor
from tests.support.agent_hub import ROLES, Served, api, client_of, served
from tests.support.net import eventually


@dataclass
class Script:
    """Turns that tell `pieces` and then wait for `go`; who said what."""

    pieces: int = 3
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    said: list[str] = field(default_factory=list)
    cancelled: int = 0

    async def take(self, text: str, _turn: str, live: Live) -> None:
        self.said.append(text)
        for number in range(self.pieces):
            await live.tell({"type": "text", "text": str(number)})
            await asyncio.sleep(0)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await live.tell({"type": "text", "text": "."})


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Have every turn be the script's."""
    made = Script()

    async def take(_agents: object, text: str, turn: str, live: Live) -> None:
        await made.take(text, turn, live)

    monkeypatch.setattr("roost.agent.service.Agents._take", take)
    return made


@asynccontextmanager
async def hub(folder: Path, ping_s: float = 20.0) -> AsyncIterator[tuple[Served, aiohttp.ClientSession, str]]:
    """Run a hub; yields it, a client with a key and the address of one of its sessions."""
    async with served(folder, ping_s=ping_s) as running, client_of("anna") as client:
        async with client.post(f"{running.url}{PATH}", json={}) as answer:
            session = (await answer.json())["id"]
        yield running, client, f"{running.url}{PATH}/{session}"


async def until(socket: aiohttp.ClientWebSocketResponse, kind: str) -> list[dict[str, Any]]:
    """Return events up to the first of a kind."""
    got: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not got or got[-1]["type"] != kind:
            got.append(json.loads(await socket.receive_str()))
    return got


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """Read to the end; return the code that it was closed with."""
    async with asyncio.timeout(20):
        async for _ in socket:
            pass
    return socket.close_code


async def test_what_is_said_there_is_answered_there(tmp_path: Path, script: Script) -> None:
    script.go.set()
    async with hub(tmp_path) as (_, client, url), client.ws_connect(f"{url}/events", protocols=["roost.events"]) as ws:
        assert ws.protocol == "roost.events"
        await until(ws, "idle")
        await ws.send_json({"type": "say", "text": "hi"})
        got = await until(ws, "idle")
        assert [event["type"] for event in got if event["type"] != "accepted"] == [
            "turn", "text", "text", "text", "text", "end", "idle",
        ]  # fmt: skip
        numbers = [int(event[ID].rpartition("-")[2]) for event in got if ID in event]
        assert numbers == list(range(numbers[0], numbers[0] + 7))
        assert script.said == ["hi"]


async def test_a_lost_connection_goes_on_where_it_was_by_socket_and_by_stream(tmp_path: Path, script: Script) -> None:
    async with hub(tmp_path) as (_, client, url):
        async with client.ws_connect(f"{url}/events") as ws:
            await until(ws, "idle")
            await ws.send_json({"type": "say", "text": "hi"})
            seen = (await until(ws, "text"))[-1]
        await script.begun.wait()
        script.go.set()
        async with client.ws_connect(f"{url}/events?last_event_id={seen[ID]}") as ws:
            rest = await until(ws, "idle")
        assert [event.get("text", event["type"]) for event in rest] == ["1", "2", ".", "end", "idle"]
        async with client.get(f"{url}/events", headers={"Last-Event-ID": seen[ID]}) as answer:
            lines = [(await answer.content.readline()).decode().strip() for _ in range(14)]
        data = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
        assert [event[ID] for event in data] == [event[ID] for event in rest]
        assert [line[4:] for line in lines if line.startswith("id: ")] == [event[ID] for event in rest]
        async with client.ws_connect(f"{url}/events?last_event_id=00000000-7") as ws:
            assert [event["type"] for event in await until(ws, "idle")] == ["missed", "idle"]


async def test_who_comes_in_the_middle_can_have_the_whole_turn(tmp_path: Path, script: Script) -> None:
    async with hub(tmp_path) as (_, client, url):
        async with client.post(f"{url}/messages", json={"text": "hi"}) as answer:
            assert answer.status == 202
        await script.begun.wait()
        async with client.ws_connect(f"{url}/events?whole_turn=true") as ws:
            assert [event["type"] for event in await until(ws, "text")] == ["turn", "text"]
        script.go.set()


@pytest.mark.parametrize(("key", "status"), [("bert", 404), ("rita", 403), ("nobody", 401), ("", 401)])
async def test_other_keys_do_not_get_in(tmp_path: Path, key: str, status: int) -> None:
    async with hub(tmp_path) as (_, _client, url), client_of(key) as other:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await other.ws_connect(f"{url}/events")
        assert refused.value.status == status


async def test_what_is_not_understood_is_refused_and_the_connection_stays(tmp_path: Path, script: Script) -> None:
    async with hub(tmp_path) as (_, client, url), client.ws_connect(f"{url}/events") as ws:
        await until(ws, "idle")
        for bad in ("x", "{}", "[]", '{"type": "say"}', '{"type": "say", "text": ""}', '{"type": "go", "text": "x"}'):
            await ws.send_str(bad)
            assert (await until(ws, "refused"))[-1]["code"] == "invalid"
        await ws.send_bytes(b"\xff\xfe")
        await until(ws, "refused")
        await ws.send_json({"type": "say", "text": "hi"})
        await script.begun.wait()
        await ws.send_json({"type": "cancel"})
        got = await until(ws, "idle")
        assert "cancelled" in [event["type"] for event in got]
        assert any(event.get("cancelled") for event in got)
        assert script.cancelled == 1
        await ws.send_json({"type": "cancel"})
        assert next(e for e in await until(ws, "accepted") if "cancelled" in e) == {
            "type": "accepted",
            "cancelled": False,
        }


async def test_leaving_does_not_end_the_turn(tmp_path: Path, script: Script) -> None:
    async with hub(tmp_path) as (running, client, url):
        async with client.ws_connect(f"{url}/events") as ws:
            await ws.send_json({"type": "say", "text": "hi"})
            await script.begun.wait()
        live = next(iter(running.hub.agents._open.values())).live
        await eventually(lambda: not live.watched, 10, "the watcher to be gone")
        assert live.busy
        script.go.set()
        await live.over()
        assert script.cancelled == 0


async def test_a_key_that_is_revoked_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STILL_S", 0.05)
    async with hub(tmp_path) as (_, client, url), client.ws_connect(f"{url}/events") as ws:
        await until(ws, "idle")
        monkeypatch.delitem(ROLES, "anna")
        assert (await until(ws, "error"))[-1]["message"] == "This key is no longer good."
        assert await closed(ws) == 1008


async def test_who_reads_nothing_holds_nobody_up_and_is_let_go(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WATCHER_EVENTS", 50)
    script.go.set()
    async with hub(tmp_path, ping_s=2.0) as (running, client, url):
        session = url.rpartition("/")[2]
        reader, writer = await asyncio.open_connection(*running.url.removeprefix("http://").split(":"), limit=256)
        head = (
            f"GET {PATH}/{session}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer anna\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        writer.write(head.encode())
        assert b"101" in await reader.readline()
        live = next(iter(running.hub.agents._open.values())).live
        await eventually(lambda: live.watched, 10, "the watcher")
        for _ in range(400):
            await live.tell({"type": "text", "text": "x" * 100_000})
        await eventually(lambda: not live.watched, 20, "the slow reader to be let go")
        async with client.ws_connect(f"{url}/events") as ws:
            await ws.send_json({"type": "say", "text": "hi"})
            await until(ws, "end")
        writer.close()


async def test_it_is_pinged_and_gone_when_it_does_not_answer(tmp_path: Path) -> None:
    async with hub(tmp_path, ping_s=1.0) as (running, client, url):
        async with client.ws_connect(f"{url}/events") as ws:  # this one answers by itself
            await until(ws, "idle")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3.0):
                    await ws.receive()
            assert not ws.closed
        async with client.ws_connect(f"{url}/events", autoping=False) as ws:
            await until(ws, "idle")
            assert (await ws.receive(timeout=30)).type is aiohttp.WSMsgType.PING
            live = next(iter(running.hub.agents._open.values())).live
            await eventually(lambda: not live.watched, 10, "who does not answer to be let go")


async def test_when_the_service_stops_a_turn_is_told_to_its_end_and_who_only_watches_is_sent_away(
    tmp_path: Path, script: Script
) -> None:
    async with hub(tmp_path) as (running, client, url):
        async with client.post(f"{running.url}{PATH}", json={}) as answer:
            quiet = f"{running.url}{PATH}/{(await answer.json())['id']}/events"
        async with client.ws_connect(f"{url}/events") as ws, client.ws_connect(quiet) as idle:
            await until(idle, "idle")
            await ws.send_json({"type": "say", "text": "hi"})
            await script.begun.wait()
            running.hub.agents.let_go()
            assert (await until(idle, "stopping"))[-1] == {"type": "stopping"}
            assert await closed(idle) == 1012
            async with client.post(f"{url}/messages", json={"text": "more"}) as answer:
                assert answer.status == 503
            script.go.set()
            kinds = [event["type"] for event in await until(ws, "stopping")]
            assert kinds[-4:] == ["text", "end", "idle", "stopping"]
            assert await closed(ws) == 1012
        async with client.get(f"{url}/events") as answer:  # who comes now is sent away at once
            assert [line.strip() async for line in answer.content if line.strip()][-1] == b'data: {"type": "stopping"}'


async def test_what_is_said_while_the_service_stops_is_refused_and_the_turn_under_way_told_to_its_end(
    tmp_path: Path, script: Script
) -> None:
    async with hub(tmp_path) as (running, client, url), client.ws_connect(f"{url}/events") as ws:
        await ws.send_json({"type": "say", "text": "hi"})
        await script.begun.wait()
        running.hub.agents.let_go()
        await ws.send_json({"type": "say", "text": "more"})
        assert (await until(ws, "refused"))[-1]["code"] == "stopping"
        script.go.set()
        assert [event["type"] for event in await until(ws, "stopping")][-4:] == ["text", "end", "idle", "stopping"]
        assert await closed(ws) == 1012


async def test_a_conversation_that_is_gone_is_closed(tmp_path: Path) -> None:
    async with hub(tmp_path) as (running, client, url), client.ws_connect(f"{url}/events") as ws:
        await until(ws, "idle")
        running.hub.agents._open.clear()  # as of one that nobody was in for long
        running.hub.agents.store.purge("anna", url.rpartition("/")[2])
        await ws.send_json({"type": "say", "text": "hi"})
        assert (await until(ws, "refused"))[-1]["code"] == "session_not_found"
        assert await closed(ws) == 1008


async def test_who_watches_a_conversation_that_is_removed_is_sent_away(tmp_path: Path, script: Script) -> None:
    async with hub(tmp_path) as (_, client, url), client.ws_connect(f"{url}/events") as ws:
        await ws.send_json({"type": "say", "text": "hi"})
        await script.begun.wait()
        async with client.delete(url) as answer:
            assert answer.status == 204
        assert [event["type"] for event in await until(ws, "removed")][-3:] == ["cancelled", "idle", "removed"]
        assert await closed(ws) == 1008


async def test_a_turn_that_is_cancelled_while_the_service_stops_lets_go_of_who_watches(
    tmp_path: Path, script: Script
) -> None:
    async with hub(tmp_path) as (running, client, url), client.ws_connect(f"{url}/events") as ws:
        await ws.send_json({"type": "say", "text": "hi"})
        await script.begun.wait()
        await ws.send_json({"type": "say", "text": "and this"})
        await until(ws, "accepted")
        await eventually(lambda: bool(next(iter(running.hub.agents._open.values())).live.waiting), 10, "the message")
        running.hub.agents.let_go()
        assert "not answered" in (await until(ws, "error"))[-1]["message"]
        await ws.send_json({"type": "cancel"})
        assert [event["type"] for event in await until(ws, "stopping")][-1] == "stopping"
        assert await closed(ws) == 1012


async def test_an_agent_that_is_first_asked_for_while_the_service_stops_begins_nothing(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        door = AgentDoor(api, tmp_path, http, "http://127.0.0.1:1", None)
        door.let_go(5.0)
        agents = door._assembled().agents
        session = agents.store.create("anna").id
        with pytest.raises(StoppingError):
            await agents.say(Asker("anna", "anna", "user"), session, Said("hi"))
        await door.close()


async def test_only_so_many_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_WATCHERS", 1)
    async with hub(tmp_path) as (_, client, url), client.ws_connect(f"{url}/events") as ws:
        await until(ws, "idle")
        async with client.get(f"{url}/events") as answer:
            assert answer.status == 429
