"""The store and its search: found by words and meaning, forgotten without a trace; killed, damaged, a full disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.agent.audit.log import AuditLog
from roost.agent.memory import store as store_module
from roost.agent.memory.facts import Kind, RefusedError
from roost.agent.memory.meaning import chosen, fused, nearest, unit
from roost.agent.memory.memory import CATCH_UP, Memory
from roost.agent.memory.store import DATABASE, FactNotFoundError, FactStore, Which
from roost.agent.memory.tools import MemoryTools, bearing
from roost.agent.sessions.store import FileSessionStore
from roost.agent.tool import ToolCall
from roost.ops.errors import RoostError
from tests.unit.agent.memory.world import NoEmbedder, Subjects

WRITER = """
import sys
from pathlib import Path
from roost.agent.memory.store import FactStore
store = FactStore(Path(sys.argv[1]))
for number in range(10_000):
    store.add("alice", f"fact number {number}", source="test")
    print(number, flush=True)
"""


def memory(folder: Path) -> Memory:
    return Memory(FactStore(folder), AuditLog(folder / "audit"))


async def test_a_question_finds_by_words_and_says_why_not_by_meaning(tmp_path: Path) -> None:
    held = memory(tmp_path)
    held.remember("alice", "The dog is called Rex.", source="user")
    held.remember("alice", "The bread needs rye.", source="user")
    held.remember("bob", "The dog is called Bello.", source="user")
    found = await held.search("alice", "What is my dog called?", NoEmbedder())
    assert [fact.text for fact in found.facts] == ["The dog is called Rex."]
    assert (found.by, found.why) == ("words", "there is no embedding model")
    assert (await held.search("alice", '") OR text:* NEAR(', NoEmbedder())).facts == ()
    broken = await held.search("alice", "bread", Subjects(broken=True))
    assert (broken.by, broken.why, len(broken.facts)) == ("words", "The embedding model subjects answered 503.", 1)


async def test_meaning_finds_what_has_none_of_the_words(tmp_path: Path) -> None:
    held, embedder = memory(tmp_path), Subjects()
    held.remember("alice", "Rex barks at night.", source="user")
    held.remember("alice", "Berlin is loud.", source="user")
    found = await held.search("alice", "Which animal is it?", embedder)
    assert [fact.text for fact in found.facts] == ["Rex barks at night."]
    assert (found.by, found.why) == ("words and meaning", "")
    embedder.embedded.clear()
    await held.search("alice", "Which city?", embedder)
    assert embedder.embedded == ["Which city?"]  # facts have their vectors already
    other = Subjects("another")
    await held.search("alice", "city", other)
    assert len(other.embedded) == 3  # another model has vectors of its own


async def test_a_fact_that_the_model_refuses_keeps_no_other_from_being_found_by_meaning(tmp_path: Path) -> None:
    held, embedder = memory(tmp_path), Subjects(refuses="too long")
    for text in ("Rex barks at night.", "This one is too long.", "Berlin is loud."):
        held.remember("alice", text, source="user")
    found = await held.search("alice", "Which animal is it?", embedder)
    assert [fact.text for fact in found.facts] == ["Rex barks at night."]
    assert (found.by, found.why) == ("words and meaning", "1 facts have no vector yet and are found by words only")
    embedder.embedded.clear()
    await held.search("alice", "Which city?", embedder)
    assert embedder.embedded == ["Which city?"]  # it is not tried each time


async def test_many_facts_get_their_vectors_bit_by_bit_and_that_is_said(tmp_path: Path) -> None:
    held = memory(tmp_path)
    for number in range(CATCH_UP + 5):
        held.remember("alice", f"Thing {number}", source="user")
    assert (await held.search("alice", "dog", Subjects())).why.startswith("5 facts have no vector yet")
    assert (await held.search("alice", "dog", Subjects())).why == ""


def test_the_same_fact_is_known_once_and_as_of_now(tmp_path: Path) -> None:
    store = FactStore(tmp_path)
    first, new = store.add("alice", "The dog is called Rex.", source="user", kind=Kind.PROFILE)
    again, known = store.add("alice", "the dog  is called rex", source="agent")
    assert (new, known, again.id, again.kind) == (True, False, first.id, Kind.PROFILE)
    assert again.at >= first.at
    assert store.add("bob", "The dog is called Rex.", source="user")[1]


def test_what_is_forgotten_is_nowhere_in_the_file(tmp_path: Path) -> None:
    store = FactStore(tmp_path)
    kept, _ = store.add("alice", "The bread needs rye.", source="user")
    gone, _ = store.add("alice", "The zeppelin leaves on Tuesday.", source="agent", session="s1")
    theirs, _ = store.add("bob", "Mine stays.", source="agent")
    with pytest.raises(FactNotFoundError):
        store.forget("alice", Which(ids=(kept.id, theirs.id)))
    assert store.forget("alice", Which()) == []
    assert store.forget("alice", Which(source="agent"), dry_run=True) == [gone]
    assert store.forget("alice", Which(source="agent", session="s2")) == []
    assert store.forget("alice", Which(before="2000-01-01")) == []
    assert store.forget("alice", Which(source="agent")) == [gone]
    store.close()
    data = (tmp_path / DATABASE).read_bytes()
    assert b"zeppelin" not in data
    assert b"Tuesday" not in data
    assert b"tuesday" not in data  # the words of the index are in lower case
    again = FactStore(tmp_path)
    assert (again.all_of("alice"), again.get("bob", theirs.id)) == ([kept], theirs)
    assert again.by_words("alice", "zeppelin", 5) == []


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        for _ in range(25):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split())])
    facts = {fact.text for fact in FactStore(tmp_path).all_of("alice")}
    assert {f"fact number {number}" for number in range(last + 1)} <= facts
    assert len(FactStore(tmp_path).by_words("alice", f"number {last}", 5000)) == len(facts)


@pytest.mark.parametrize("damage", ["all", "page"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: str) -> None:
    store = FactStore(tmp_path)
    for number in range(200):
        store.add("alice", f"fact number {number} {'x' * 200}", source="test")
    store.close()
    path = tmp_path / DATABASE
    data = bytearray(path.read_bytes())
    if damage == "all":
        data[:100] = b"z" * 100
    else:
        for start in range(4096 * 2, len(data), 4096):
            data[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    with pytest.raises(RoostError, match="cannot be used") as told:
        FactStore(tmp_path).all_of("alice")
    assert str(path) in told.value.fix


def test_a_full_disk_is_told_and_nothing_is_half_kept(tmp_path: Path) -> None:
    store = FactStore(tmp_path)
    store.add("alice", "first", source="test")
    with store._change() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    store._database().execute(f"PRAGMA max_page_count = {pages + 1}")
    kept = 1
    with suppress(OSError):
        for number in range(100):
            store.add("alice", f"{number} {'x' * 900}", source="test")
            kept += 1
    with pytest.raises(OSError, match="No space left"):
        store.add("alice", "x" * 1000, source="test")
    assert kept < 100
    assert len(store.all_of("alice")) == kept


def test_there_is_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_FACTS", 2)
    store = FactStore(tmp_path)
    store.add("alice", "one", source="test")
    store.add("alice", "two", source="test")
    with pytest.raises(RefusedError, match="2 facts"):
        store.add("alice", "three", source="test")
    assert not store.add("alice", "two", source="test")[1]


def test_a_database_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    FactStore(tmp_path).add("alice", "one", source="test")
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RoostError, match="version 99"):
        FactStore(tmp_path).all_of("alice")


async def test_the_tools(tmp_path: Path) -> None:
    held, sessions = memory(tmp_path / "m"), FileSessionStore(tmp_path / "s")
    tools = MemoryTools(held, sessions, NoEmbedder(), "alice", "s1", lambda: None, "")

    async def call(name: str, **arguments: str) -> str:
        return await tools.run(ToolCall(id="1", name=name, arguments=dict(arguments), session="s1"))

    assert "The dog is called Rex" in await call("remember", text="The dog is called Rex")
    assert "known already" in await call("remember", text="The dog is called Rex.")
    assert "private" in await call("remember", text="Ann is allergic to nuts")
    with pytest.raises(RefusedError):
        await call("remember", text="the password is hunter2")
    assert "from agent" in await call("recall", words="dog")
    assert held.store.all_of("alice")[0].session == "s1"
    assert "Nothing that is remembered" in await call("forget", words="the dog of the neighbours")
    for number in range(4):
        held.remember("alice", f"Plan {number} fails", source="user")
    assert "4 facts say something" in await call("forget", words="plan fails")
    assert "1 facts" in await call("forget", words="dog")
    assert "Nothing is known" in await call("recall", words="dog")
    assert [tool.name for tool in tools.tools("Remember the milk", with_others=False)] == [
        "remember",
        "recall",
        "forget",
    ]
    assert tools.tools("What is the capital of France?", with_others=False) == []
    actions = {entry.action for entry in AuditLog(tmp_path / "m" / "audit").tail(50)}
    assert actions == {"memory.remember", "memory.forget"}
    assert b"Rex" not in b"".join(path.read_bytes() for path in (tmp_path / "m" / "audit").iterdir())


async def test_nothing_private_is_put_before_a_model_unasked(tmp_path: Path) -> None:
    held = memory(tmp_path)
    assert await bearing(held, "alice", "nuts?", NoEmbedder()) == []
    held.remember("alice", "Ann is allergic to nuts", source="user")
    held.remember("alice", "The nuts are in the cellar", source="user")
    held.remember("alice", "Always mention nuts", source="user", kind=Kind.INSTRUCTION)
    lines = await bearing(held, "alice", "Where are the nuts?", NoEmbedder())
    assert len(lines) == 1
    assert "cellar" in lines[0]


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), max_size=8), st.integers(1, 5))
def test_the_nearest_are_those_with_the_largest_cosine(rows: list[list[float]], most: int) -> None:
    vectors = [(str(number), unit(row)) for number, row in enumerate(rows)]
    query = unit([1.0, 0.5, 0.0])
    found = nearest(query, vectors, 0.5, most)
    likeness = {name: sum(a * b for a, b in zip(query, vector, strict=True)) for name, vector in vectors}
    assert found == sorted((n for n in likeness if likeness[n] >= 0.5), key=lambda n: (-likeness[n], n))[:most]


@given(st.lists(st.permutations(["a", "b", "c", "d"]), min_size=1, max_size=3))
def test_a_fused_ranking_has_each_once_and_keeps_what_all_agree_on(rankings: list[list[str]]) -> None:
    order = fused(*rankings)
    assert sorted(order) == ["a", "b", "c", "d"]
    for one in order:
        for other in order:
            if all(ranking.index(one) < ranking.index(other) for ranking in rankings):
                assert order.index(one) < order.index(other)


def test_a_model_for_embeddings_is_chosen_by_what_it_can() -> None:
    chat = {"id": "chat", "roost": {"slot": "main", "can": ["embed", "generate"]}}
    cloud = {"id": "cloud", "roost": {"slot": "", "can": ["embed"], "auto": False}}
    small = {"id": "small", "roost": {"slot": "", "can": ["embed"]}}
    slot = {"id": "slot", "roost": {"slot": "embedding", "can": None}}
    assert chosen([chat, cloud, "?", {}]) == ""
    assert chosen([chat, cloud, small]) == "small"
    assert chosen([slot]) == "slot"


async def test_a_full_disk_leaves_the_search_by_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = memory(tmp_path)
    held.remember("alice", "The dog is called Rex.", source="user")

    def full(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held.store, "set_vectors", full)
    found = await held.search("alice", "dog", Subjects())
    assert ([fact.text for fact in found.facts], found.by) == (["The dog is called Rex."], "words")
    assert "No space" in found.why
