"""How prompts begin, and what endpoints hold of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.balance.held import Held, Match
from roost.gateway.balance.prefix import BLOCK_BYTES, blocks_of, session_of

Messages = list[dict[str, str]]
messages_strategy = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=400)}),
    min_size=1,
    max_size=8,
)


def body(messages: Messages, **more: object) -> bytes:
    return json.dumps({"model": "tiny", "messages": messages, **more}).encode()


@given(messages_strategy, messages_strategy)
def test_a_conversation_that_goes_on_begins_as_before(messages: Messages, later: Messages) -> None:
    before = blocks_of(body(messages, stream=True, max_tokens=5), "messages", "tiny")
    after = blocks_of(body(messages + later, stream=True, max_tokens=9), "messages", "tiny")
    said = len(json.dumps(messages)) - 2
    same = sum(1 for one, other in zip(before, after, strict=False) if one == other)
    assert same >= said // BLOCK_BYTES - 1
    assert list(before[:same]) == list(after[:same])


def test_other_fields_models_and_texts_are_told_apart() -> None:
    long = [{"role": "user", "content": "x" * 1000}]
    tools = [{"type": "function", "function": {"name": "f" * 500}}]
    assert blocks_of(body(long, tools=tools), "messages", "a") == blocks_of(body(long), "messages", "a")[:8]
    assert blocks_of(body(long), "messages", "a")[0] != blocks_of(body(long), "messages", "b")[0]
    other = blocks_of(body([{"role": "user", "content": "y" + "x" * 999}]), "messages", "a")
    assert not set(other) & set(blocks_of(body(long), "messages", "a"))
    assert blocks_of(b'{"prompt": "short"}', "prompt", "a") == ()
    assert blocks_of(b"{}", "messages", "a") == ()


@pytest.mark.parametrize(
    ("text", "session"),
    [
        (b'{"messages": [{"role": "user", "content": "hi"}]}', ""),
        (b'{"messages": [{"role": "user", "content": "hi"}], "user": "alice"}', "alice"),
        (b'{"user": "alice", "prompt_cache_key" : "talk 7", "messages": []}', "talk 7"),
        (b'{"metadata": {"user_id": "u1"}, "messages": [{"role":"user"}]}', "u1"),
        (b'{"messages": [{"content": "say \\"user\\": \\"bob\\""}]}', ""),
        (b'{"user": 7}', ""),
    ],
)
def test_a_session_is_read_from_the_body(text: bytes, session: str) -> None:
    assert session_of(text) == session


def test_a_conversation_goes_on_and_another_branches_off() -> None:
    held = Held()
    talk = tuple(range(10))
    held.add(talk)
    assert held.match((*talk, 10, 11)) == Match(10, continues=True)
    assert held.match((0, 1, 77, 78)) == Match(2, continues=False)  # the same instructions, another talk
    held.add((*talk, 10, 11))
    assert len(held) == 1
    held.add((0, 1, 77, 78))
    assert len(held) == 2
    assert held.match((0, 1, 77, 78, 79)) == Match(4, continues=True)
    assert held.match((*talk, 10, 11, 12)) == Match(12, continues=True)


chains = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=30)


def chained(words: list[int]) -> tuple[int, ...]:
    """Return hashes over all words up to each one, as a prompt's blocks have."""
    return tuple(hash(tuple(words[: at + 1])) for at in range(len(words)))


@given(chains, st.integers(1, 5), st.integers(4, 40))
def test_what_is_held_is_bounded_and_matches_exactly_what_is_there(
    prompts: list[list[int]], conversations: int, blocks: int
) -> None:
    held = Held(conversations, blocks)
    for words in prompts:
        held.add(chained(words))
        assert len(held) <= conversations
        assert held.blocks <= blocks
        assert held.match(chained(words)).blocks == min(len(words), blocks)
    there = {block for one in held._conversations.values() for block in one.blocks}
    assert held.blocks == len(there)
    for words in prompts:
        match = held.match(chained(words)).blocks
        assert match == sum(block in there for block in chained(words))
    held.shrink(conversations=0)
    assert (len(held), held.blocks) == (0, 0)
