"""Whole texts behind shortened ones, after their conversation was removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import aiohttp
import pytest

from roost.agent.sessions import leftovers, sweeping
from roost.agent.sessions.leftovers import IN_USE_S, Swept, references, sweep
from roost.agent.sessions.records import EventBody, ToolResultBody, UnreadableError
from roost.agent.sessions.routes import PATH
from roost.agent.sessions.store import FileSessionStore
from roost.agent.tool import Outcome, ToolResult
from roost.cli.serve_agent import AgentDoor
from roost.context.blobs import FileBlobs
from tests.support.agent_hub import Served, api, client_of, served


def result(text: str) -> ToolResultBody:
    return ToolResultBody(result=ToolResult(id="c", outcome=Outcome.OK, text=text))


def old(folder: Path) -> None:
    """Make every text look as if nobody had used it for long."""
    for path in folder.glob("*/??/*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 2 * IN_USE_S))


def aged(folder: Path) -> tuple[FileSessionStore, FileBlobs]:
    """Return stores below a folder."""
    return FileSessionStore(folder / "sessions"), FileBlobs(folder / "blobs")


def test_what_another_conversation_refers_to_or_holds_stays(tmp_path: Path) -> None:
    store, blobs = aged(tmp_path)
    texts = ["only there", "named here", "held here", "of nobody"]
    names = [blobs.put("alice", text.encode()) for text in texts]
    mine = blobs.put("bert", b"only there")
    stays, goes = store.create("alice").id, store.create("alice").id
    store.append("alice", goes, *map(result, texts[:3]))
    store.append("alice", stays, EventBody(name="context.gated", detail={"reference": names[1]}), result(texts[2]))
    store.archive("alice", stays)
    store.purge("alice", goes)
    first = sweep(store, blobs, "alice")  # a turn may be about to name what was put just now
    assert first.gone == ()
    assert first.again_s == pytest.approx(IN_USE_S, abs=60)
    old(tmp_path / "blobs")
    blobs.put("alice", b"of nobody")  # is of use again
    assert sweep(store, blobs, "alice").gone == (names[0],)
    old(tmp_path / "blobs")
    assert blobs.get("alice", names[3]) == b"of nobody"
    assert sweep(store, blobs, "alice").gone == ()
    old(tmp_path / "blobs")
    assert sweep(store, blobs, "alice") == Swept((names[3],))
    assert sorted(blobs.kept("alice")) == sorted(names[1:3])
    assert list(blobs.kept("bert")) == [mine]


class Meanwhile(FileSessionStore):
    """A store in which `happens` comes once, after the conversations were read and before they are looked at again."""

    happens: Callable[[], object] = staticmethod(lambda: None)

    def at_rest(self) -> AbstractContextManager[object]:
        self.happens()
        return super().at_rest()


def test_what_happens_while_conversations_are_read_is_seen(tmp_path: Path) -> None:
    store, blobs = Meanwhile(tmp_path / "sessions"), FileBlobs(tmp_path / "blobs")
    put, named, begun = (blobs.put("alice", text) for text in (b"put again", b"named again", b"named in a new one"))
    session = store.create("alice").id
    old(tmp_path / "blobs")

    def happens() -> None:
        blobs.put("alice", b"put again")
        store.append("alice", session, EventBody(name="context.gated", detail={"reference": named}))
        store.append("alice", store.create("alice").id, result(begun))

    store.happens = happens
    assert sweep(store, blobs, "alice").gone == ()
    assert sorted(blobs.kept("alice")) == sorted([put, named, begun])


def test_a_text_that_is_put_after_its_age_was_looked_at_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, blobs = aged(tmp_path)
    blobs.put("alice", b"text")
    old(tmp_path / "blobs")
    remove = blobs.remove

    def put_and_remove(owner: str, reference: str, unused_s: float) -> bool:
        blobs.put("alice", b"text")
        return remove(owner, reference, unused_s)

    monkeypatch.setattr(blobs, "remove", put_and_remove)
    assert sweep(store, blobs, "alice").gone == ()
    assert len(blobs.kept("alice")) == 1


@pytest.mark.parametrize("archived", [True, False])
def test_a_conversation_that_moves_while_others_are_read_is_read(tmp_path: Path, *, archived: bool) -> None:
    store, blobs = aged(tmp_path)
    name = blobs.put("alice", b"text")
    ids = sorted(store.create("alice").id for _ in range(3))
    for session in ids:
        store.archive("alice", session, archived=archived)
    store.append("alice", ids[-1], result(name))
    old(tmp_path / "blobs")
    found = store.lines("alice", {})
    read = [next(found)]  # of the first one
    store.archive("alice", ids[-1], archived=not archived)
    assert references([*read, *found]) >= {name}
    assert sweep(store, blobs, "alice").gone == ()


def test_nothing_goes_while_a_line_of_the_owner_cannot_be_read(tmp_path: Path) -> None:
    store, blobs = aged(tmp_path)
    blobs.put("alice", b"text")
    blobs.put("bert", b"text")
    session = store.create("alice").id
    old(tmp_path / "blobs")
    file = tmp_path / "sessions" / f"{session}.jsonl"
    good = file.read_bytes()
    for bad in (good + b'{"seq":2,"at":"2026-01-01T00:00:00Z","body":{"kind":"of a later release"}}\n', b"x" + good):
        file.write_bytes(bad)
        with pytest.raises(UnreadableError):
            sweep(store, blobs, "alice")
    assert len(blobs.kept("alice")) == 1
    with pytest.raises(UnreadableError):  # nobody knows whose it is
        sweep(store, blobs, "bert")
    file.write_bytes(good + b"x\n")
    assert len(sweep(store, blobs, "bert").gone) == 1
    file.write_bytes(good)
    assert len(sweep(store, blobs, "alice").gone) == 1


@pytest.mark.parametrize("name", ["0000000000000000.jsonl", "0000000000000000.jsonl.broken"])
def test_a_file_that_the_index_left_out_and_what_a_crash_cut_off_count(tmp_path: Path, name: str) -> None:
    store, blobs = aged(tmp_path)
    reference = blobs.put("alice", b"text")
    old(tmp_path / "blobs")
    file = tmp_path / "sessions" / "archive" / name
    file.write_text(f'{{"seq":7,"at":"2026-01-01T00:00:00Z","body":{{"kind":"message","text":"{reference}')
    assert sweep(store, blobs, "alice").gone == ()
    file.unlink()
    assert sweep(store, blobs, "alice").gone == (reference,)


async def purged(client: aiohttp.ClientSession, hub: Served, text: str) -> None:
    """Begin a conversation in which a text was shortened, and remove it."""
    hub.hub.agents._blobs.put("anna", text.encode())
    async with client.post(f"{hub.url}{PATH}", json={}) as answer:
        session = (await answer.json())["id"]
    hub.hub.agents.store.append("anna", session, result(text))
    async with client.delete(f"{hub.url}{PATH}/{session}") as answer:
        assert answer.status == 204


async def test_they_go_with_a_conversation_that_is_removed_over_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_AFTER_S", 0.01)
    monkeypatch.setattr(leftovers, "IN_USE_S", -1.0)
    async with served(tmp_path) as hub, client_of("anna") as client:
        for number in range(3):
            await purged(client, hub, "secret")
            await hub.hub.agents.sweeper.done()
            assert list(FileBlobs(tmp_path / "blobs").kept("anna")) == [], number
            assert hub.hub.agents._blobs.marked() == []


async def test_what_was_in_use_is_looked_at_again_without_another_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SWEEP_AFTER_S", 0.01)
    answers = [Swept(again_s=0.01), Swept()]
    monkeypatch.setattr(sweeping, "sweep", lambda *_: answers.pop(0))
    async with served(tmp_path) as hub, client_of("anna") as client:
        await purged(client, hub, "secret")
        await hub.hub.agents.sweeper.done()
    assert answers == []


async def test_the_next_process_goes_on_with_what_this_one_did_not_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as hub, client_of("anna") as client:
        await purged(client, hub, "secret")
    blobs = FileBlobs(tmp_path / "blobs")
    assert (len(blobs.kept("anna")), blobs.marked()) == (1, ["anna"])
    monkeypatch.setattr(sweeping, "SWEEP_AFTER_S", 0.01)
    monkeypatch.setattr(leftovers, "IN_USE_S", -1.0)
    async with aiohttp.ClientSession() as http:
        door = AgentDoor(api, tmp_path, http, "http://127.0.0.1:1", None)
        agents = door._assembled().agents
        await agents.sweeper.done()
        await door.close()
    assert (blobs.kept("anna"), blobs.marked()) == ({}, [])
