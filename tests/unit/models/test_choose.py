"""Which model fills which slot, by role, name and metadata."""

from __future__ import annotations

import pytest

from roost.models.choose import Seen, guess_roles, rank
from roost.models.model_slots import parse_slots, role_of_slot
from roost.models.schema import Role
from roost.ops.errors import RoostError

TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"


@pytest.mark.parametrize(
    ("seen", "first", "others"),
    [
        (Seen("a", "Gemma 3n E4B It"), "main", {"memory"}),
        (Seen("a", "Ministral 3 8B Instruct 2512", chat_template=TOOLS), "main", {"specialist", "router", "memory"}),
        (Seen("nvidia_Orchestrator-8B-Q4_K_M"), "router", {"main", "specialist"}),
        (Seen("a", "Qwen3 Coder 30B A3B Instruct", chat_template=TOOLS), "coding", {"specialist", "router", "main"}),
        (Seen("a", "Qwen3 VL 4B Instruct"), "vision", {"main", "specialist"}),
        (Seen("a", "Something", has_projector=True), "vision", {"main"}),
        (Seen("a", "LFM2 1.2B Extract"), "memory", {"main"}),
        (Seen("a", "LFM2-1.2B-Tool"), "specialist", {"router", "main"}),
        (Seen("a", "QwQ 32B"), "rlm", {"main", "specialist"}),
        (Seen("a", "Llama 3 8B Base"), "main", set()),
        (Seen("a", "Qwen3 8B", chat_template=TOOLS), "specialist", {"router", "main"}),
        (Seen("a", "Qwen3-Embedding-0.6B", architecture="qwen3"), "embedding", set()),
        (Seen("a", "anything", architecture="nomic-bert"), "embedding", set()),
        (Seen("a", "itinerary writer"), "main", set()),  # no word of it is a sign
    ],
)
def test_roles_by_name_and_metadata(seen: Seen, first: str, others: set[str]) -> None:
    roles = guess_roles(seen)
    assert max(roles, key=lambda role: roles[role]) == first
    assert set(roles) == {first, *others}


def test_a_reranker_does_nothing_here() -> None:
    assert guess_roles(Seen("bge-reranker-v2-m3:Q8_0", chat_template=TOOLS)) == {}
    assert rank("embedding", [Seen("bge-reranker-v2-m3:Q8_0")]) == []


def test_the_larger_of_equals_comes_first() -> None:
    small, large = Seen("a", roles={"main": 50}, parameters=1), Seen("b", roles={"main": 50}, parameters=2)
    assert [found.reference for found in rank("main", [small, large])] == ["b", "a"]


@pytest.mark.parametrize(
    ("slot", "role"),
    [("main", "main"), ("router", "router"), ("coding-2", "coding"), ("mainly", "main"), ("x", "main")],
)
def test_the_role_of_a_slot(slot: str, role: Role) -> None:
    assert role_of_slot(slot) == role


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"slot": "Main"}, "0.slot: "),
        ({"slot": "main", "model": "a", "path": "/b.gguf"}, "name a model or a path, not both"),
        ({"slot": "main", "path": "b.gguf"}, "path must begin with /"),
        ({"slot": "main", "context_size": 100}, "context_size must be 0 (chosen) or at least 256"),
        ({"slot": "main", "gpu": []}, "gpu must be auto, none, or a list"),
        ({"slot": "main", "gpu": [0, 0]}, "gpu must be auto, none, or a list"),
        ({"slot": "main", "gpu": "all"}, "0.gpu"),
        ({"slot": "main", "temperature": 3}, "0.temperature: "),
        ({"slot": "main", "colour": "red"}, "0.colour: "),
    ],
)
def test_wrong_slots_name_the_key(entry: dict[str, object], said: str) -> None:
    with pytest.raises(RoostError) as caught:
        parse_slots([entry])
    assert said in caught.value.message


def test_slots_have_different_names() -> None:
    with pytest.raises(RoostError, match="two slots called main"):
        parse_slots([{"slot": "main"}, {"slot": "main"}])
    assert parse_slots([{"slot": "main", "gpu": [1, 0]}])[0].gpu == [1, 0]
