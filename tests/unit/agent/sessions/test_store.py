"""The store of conversations: ownership, search, archive, purge, an index that is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.agent.sessions.index import CHARACTERS, MESSAGES, fts_query
from roost.agent.sessions.records import EventBody, MessageBody, TitleBody
from roost.agent.sessions.store import FileSessionStore, SessionNotFoundError, new_id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileSessionStore]:
    made = FileSessionStore(tmp_path / "sessions")
    yield made
    made.close()


def user(text: str) -> MessageBody:
    return MessageBody(role="user", text=text)


def answer(text: str) -> MessageBody:
    return MessageBody(role="assistant", text=text)


def test_a_conversation_is_titled_by_its_first_message_until_somebody_names_it(store: FileSessionStore) -> None:
    session = store.create("alice").id
    store.append("alice", session, user("How do I bake bread?"), answer("Slowly."), user("And cake?"))
    assert store.info("alice", session).title == "How do I bake bread?"
    store.append("alice", session, TitleBody(title="Baking"), user("Thanks"))
    found = store.info("alice", session)
    assert (found.title, found.messages, found.last_seq) == ("Baking", 4, 6)


@pytest.mark.parametrize("verb", ["append", "read", "info", "archive", "purge"])
def test_to_another_key_a_conversation_does_not_exist(store: FileSessionStore, verb: str) -> None:
    session = store.create("alice").id
    with pytest.raises(SessionNotFoundError):
        getattr(store, verb)("bob", session)
    assert store.sessions("bob") == []
    assert store.info("alice", session)


@pytest.mark.parametrize("session", ["", "../../etc/passwd", "a", "0" * 16, "\0" * 16])
def test_what_is_no_id_is_not_found(store: FileSessionStore, session: str) -> None:
    with pytest.raises(SessionNotFoundError):
        store.read("alice", session)


def test_search_finds_what_was_said_in_own_conversations(store: FileSessionStore) -> None:
    mine, other = store.create("alice").id, store.create("bob").id
    store.append("alice", mine, user("The Größe of a whale"), answer("A whale is long"), EventBody(name="whale"))
    store.append("bob", other, user("A whale too"))
    hits = store.search("alice", "whale")
    assert {(hit.session, hit.role) for hit in hits} == {(mine, "user"), (mine, "assistant")}
    assert "[whale]" in hits[0].snippet
    assert [hit.seq for hit in store.search("alice", "große wha")] == [2]
    assert store.search("alice", '" OR 1 * NEAR(') == []
    assert store.search("alice", "") == []


def test_the_index_holds_the_last_messages_cut_short(store: FileSessionStore) -> None:
    session = store.create("alice").id
    store.append(
        "alice", session, *(user(f"number{n}end " + "x" * CHARACTERS + " behind") for n in range(MESSAGES + 5))
    )
    assert store.search("alice", "number4end") == []
    assert len(store.search("alice", "number5end")) == 1
    assert store.search("alice", "behind") == []
    assert store.info("alice", session).messages == MESSAGES + 5


def test_a_lost_or_damaged_index_is_made_anew(store: FileSessionStore, tmp_path: Path) -> None:
    session, away = store.create("alice").id, store.create("alice").id
    store.append("alice", session, user("The capital of France"), TitleBody(title="Geography"))
    store.append("alice", away, user("Something else"))
    store.archive("alice", away)
    before = (store.sessions("alice"), store.sessions("alice", archived=True), store.search("alice", "capital"))
    store.close()
    for content in (b"", b"no database at all" * 500):
        (tmp_path / "sessions/index.sqlite").write_bytes(content)
        again = FileSessionStore(tmp_path / "sessions")
        assert (again.sessions("alice"), again.sessions("alice", archived=True), again.search("alice", "capital")) == (
            before
        )
        assert again.reindex() == 2
        assert len(again.search("alice", "capital")) == 1
        again.close()


def test_a_file_by_another_name_or_of_somebody_else_is_not_taken_in(store: FileSessionStore, tmp_path: Path) -> None:
    session = store.create("alice").id
    (tmp_path / "sessions" / f"{new_id()}.jsonl").write_bytes((tmp_path / "sessions" / f"{session}.jsonl").read_bytes())
    assert store.reindex() == 1


def test_put_away_taken_out_and_removed(store: FileSessionStore, tmp_path: Path) -> None:
    session = store.create("alice", "Trip").id
    assert store.archive("alice", session).archived
    assert store.sessions("alice") == []
    store.append("alice", session, user("still there"))
    assert not store.archive("alice", session, archived=False).archived
    assert [found.title for found in store.sessions("alice")] == ["Trip"]
    store.purge("alice", session)
    assert store.sessions("alice") == []
    assert store.search("alice", "still") == []
    assert not list((tmp_path / "sessions").rglob("*.jsonl*"))


def test_a_file_removed_by_hand_is_gone(store: FileSessionStore, tmp_path: Path) -> None:
    session = store.create("alice").id
    (tmp_path / "sessions" / f"{session}.jsonl").unlink()
    with pytest.raises(SessionNotFoundError):
        store.append("alice", session, user("x"))
    assert store.sessions("alice") == []


def test_the_last_word_may_be_a_beginning() -> None:
    assert fts_query("Two wor") == '"Two" "wor"*'


@pytest.mark.parametrize("where", ["roost.durable.lines.os.fsync", "roost.agent.sessions.index.Index.add"])
def test_a_conversation_that_found_no_room_leaves_no_file(
    store: FileSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Else each start would look through all files for one that the index does not have."""

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(where, full)
        with pytest.raises(OSError, match="No space left"):
            store.create("alice", "there is no room")
    assert list((tmp_path / "sessions").glob("*.jsonl")) == []
    assert store.create("alice").id
