"""Conversations over HTTP, and `roost sessions` in front of it: a real socket, two keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roost.agent.audit.log import AuditLog
from roost.agent.sessions.records import MessageBody
from roost.agent.sessions.routes import PATH, session_routes
from roost.agent.sessions.store import FileSessionStore, new_id
from roost.cli.sessions import app as verbs
from roost.ops.errors import RoostError
from tests.support.routes import RoutesServer, owner_of


class World(RoutesServer):
    """The store, and the address of the API in front of it; the key is the owner's name."""

    def __init__(self, folder: Path) -> None:
        self.store, self.audit = FileSessionStore(folder / "sessions"), AuditLog(folder / "audit")
        super().__init__(session_routes(self.store, owner_of, self.audit), self.store.close)

    def talk(self, owner: str, *texts: str) -> str:
        session = self.store.create(owner).id
        for text in texts:
            self.store.append(owner, session, MessageBody(role="user", text=text))
        return session


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World(tmp_path) as made:
        monkeypatch.setenv("ROOST_API", made.url)
        monkeypatch.setenv("ROOST_API_KEY", "alice")
        yield made


def roost(*words: str) -> Result:
    return CliRunner().invoke(verbs, words)


@pytest.mark.parametrize(
    ("method", "end", "body"),
    [("GET", "", None), ("GET", "/export", None), ("PATCH", "", {"title": "Mine"}), ("DELETE", "", None)],
)
def test_to_another_key_it_is_as_if_it_did_not_exist(world: World, method: str, end: str, body: object) -> None:
    session = world.talk("alice", "hello")
    with world.client("bob") as bob:
        refused = bob.request(method, f"{PATH}/{session}{end}", json=body)
        nothing = bob.request(method, f"{PATH}/{new_id()}{end}", json=body)
        assert bob.get(PATH).json()["data"] == []
        assert bob.get(f"{PATH}/search", params={"q": "hello"}).json()["data"] == []
    assert (refused.status_code, nothing.status_code) == (404, 404)
    assert refused.json()["error"]["code"] == "session_not_found"
    assert world.store.info("alice", session).title == "hello"


def test_begun_renamed_read_from_a_record_on_and_removed(world: World) -> None:
    with world.client("alice") as alice:
        made = alice.post(PATH, json={"title": "Trip"})
        assert made.status_code == 201
        path = f"{PATH}/{made.json()['id']}"
        assert alice.patch(path, json={"title": "Journey", "archived": True}).json()["title"] == "Journey"
        assert alice.get(PATH, params={"archived": True}).json()["data"][0]["archived"]
        assert [r["body"]["kind"] for r in alice.get(path, params={"after": 1}).json()["records"]] == ["title", "title"]
        assert len(alice.get(f"{path}/export").text.splitlines()) == 3
        assert alice.delete(path).status_code == 204
        assert alice.get(path).status_code == 404
        assert alice.post(PATH, json={"owner": "bob"}).status_code == 422
    assert [entry.action for entry in world.audit.tail(5)] == ["session.purge"]


def test_a_full_disk_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.store, "create", full)
    with world.client("alice") as alice:
        refused = alice.post(PATH, json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage")


def test_the_verbs(world: World, tmp_path: Path) -> None:
    session, other = world.talk("alice", "How to bake bread", "More"), world.talk("alice", "Whales")
    assert "How to bake bread" in roost("list").stdout
    assert "user: How to bake bread" in roost("show", session).stdout
    assert [hit["session"] for hit in json.loads(roost("search", "whales", "--json").stdout)] == [other]
    assert "[Whales]" in roost("search", "whal").stdout
    assert len(roost("export", session).stdout.splitlines()) == 3
    target = tmp_path / "talk.jsonl"
    assert roost("export", session, "--to", str(target)).exit_code == 0
    assert "there already" in str(roost("export", session, "--to", str(target)).exception)
    assert "put away" in roost("archive", session).stdout
    assert session not in roost("list").stdout
    assert session in roost("list", "--archived").stdout
    assert "taken out" in roost("archive", "--undo", session).stdout


def test_purge_says_what_it_would_do_and_asks(world: World) -> None:
    session, other = world.talk("alice", "one"), world.talk("alice", "two")
    assert isinstance(roost("purge").exception, RoostError)
    assert f"{session} would be removed" in roost("purge", session, "--dry-run").stdout
    assert "--yes" in str(roost("purge", session).exception)
    assert "0 conversations" in roost("purge", "--older-than", "1d", "--yes").stdout
    assert f"{session} removed" in roost("purge", session, "--yes").stdout
    assert [info["id"] for info in json.loads(roost("list", "--json").stdout)] == [other]
    assert "1 conversations" in roost("purge", "--older-than", "0d", "--yes").stdout
    assert isinstance(roost("show", other).exception, RoostError)
    assert isinstance(roost("purge", "--older-than", "old").exception, RoostError)


def test_a_long_conversation_comes_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = world.talk("alice", *(f"message {number}" for number in range(7)))
    path = f"{PATH}/{session}"
    with world.client("alice") as alice:
        whole = alice.get(path).json()
        assert (whole["more"], len(whole["records"])) == (False, 8)  # as it always was
        pieces, after, more = [], 0, True
        while more:
            page = alice.get(path, params={"limit": 3, "after": after}).json()
            pieces.append(len(page["records"]))
            after, more = page["records"][-1]["seq"], page["more"]
        assert pieces == [3, 3, 2]
        assert alice.get(path, params={"limit": 0}).status_code == 422
    monkeypatch.setattr("roost.cli.sessions.RECORDS", 3)
    assert json.loads(roost("show", session, "--json").stdout)["records"] == whole["records"]
    assert len(roost("export", session).stdout.splitlines()) == 8
