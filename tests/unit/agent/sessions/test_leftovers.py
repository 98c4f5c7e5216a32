"""Whole texts behind shortened ones, after their conversation was removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost.agent.sessions.leftovers import IN_USE_S, sweep
from roost.agent.sessions.records import EventBody, ToolResultBody
from roost.agent.sessions.routes import PATH
from roost.agent.sessions.store import FileSessionStore
from roost.agent.tool import Outcome, ToolResult
from roost.context.blobs import FileBlobs, reference_of
from tests.support.agent_hub import client_of, served


def result(text: str) -> ToolResultBody:
    return ToolResultBody(result=ToolResult(id="c", outcome=Outcome.OK, text=text))


def old(folder: Path) -> None:
    """Make every text look as if nobody had used it for long."""
    for path in folder.glob("*/??/*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 2 * IN_USE_S))


def test_what_another_conversation_refers_to_or_holds_stays(tmp_path: Path) -> None:
    store, blobs = FileSessionStore(tmp_path / "sessions"), FileBlobs(tmp_path / "blobs")
    texts = ["only there", "named here", "held here", "of nobody"]
    names = [blobs.put("alice", text.encode()) for text in texts]
    mine = blobs.put("bert", b"only there")
    stays, goes = store.create("alice").id, store.create("alice").id
    store.append("alice", goes, *map(result, texts[:3]))
    store.append("alice", stays, EventBody(name="context.gated", detail={"reference": names[1]}), result(texts[2]))
    store.archive("alice", stays)
    store.purge("alice", goes)
    removed = {reference_of(text.encode()) for text in texts[:3]}
    assert sweep(store, blobs, "alice", removed, quiet=False) == []  # a turn elsewhere may be about to name one
    assert sweep(store, blobs, "alice", removed, quiet=True) == [names[0]]
    old(tmp_path / "blobs")
    blobs.put("alice", b"of nobody")  # is of use again
    assert sweep(store, blobs, "alice", set(), quiet=True) == []
    old(tmp_path / "blobs")
    assert sweep(store, blobs, "alice", set(), quiet=True) == [names[3]]
    assert sorted(blobs.kept("alice")) == sorted(names[1:3])
    assert list(blobs.kept("bert")) == [mine]


async def test_they_go_with_a_conversation_that_is_removed_over_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.agent.service.SWEEP_AFTER_S", 0.01)
    async with served(tmp_path) as hub, client_of("anna") as client:
        blobs = FileBlobs(tmp_path / "blobs")
        for number in range(3):
            name = blobs.put("anna", b"secret")
            async with client.post(f"{hub.url}{PATH}", json={}) as answer:
                session = (await answer.json())["id"]
            hub.hub.agents.store.append("anna", session, result("secret"))
            async with client.delete(f"{hub.url}{PATH}/{session}") as answer:
                assert answer.status == 204
            await hub.hub.agents.swept()
            assert list(blobs.kept("anna")) == [], number
            assert name
