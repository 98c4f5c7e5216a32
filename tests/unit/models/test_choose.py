"""Which model fills which slot, by role, name and metadata."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.models.choose import Seen, fill_slots, guess_roles, rank
from roost.models.model_slots import ModelSlot, parse_slots, role_of_slot
from roost.models.schema import ROLES, Role
from roost.ops.errors import RoostError

TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
GEMMA = Seen("gemma-3n-e4b-it:Q4_K_M", roles={"main": 80, "specialist": 40}, parameters=7)
ORCHESTRATOR = Seen("nvidia_orchestrator-8b:Q4_K_M", roles={"router": 90, "main": 20}, parameters=8)
MINISTRAL = Seen(
    "ministral-3-8b-instruct-2512:Q4_K_M", roles={"specialist": 85, "main": 60, "router": 50}, parameters=8
)
EMBEDDER = Seen("embeddinggemma-300m:Q8_0", roles={"embedding": 80})


def slots(*names: str, **models: str) -> list[ModelSlot]:
    return [ModelSlot(slot=name, model=models.get(name, "")) for name in names]


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


@pytest.mark.parametrize(
    ("wanted", "present", "chosen"),
    [
        (slots("main"), [], {}),
        (slots("main"), [EMBEDDER], {}),
        (slots("main", "router", "specialist"), [GEMMA, ORCHESTRATOR, MINISTRAL], ["gemma", "nvidia", "ministral"]),
        # explicit always wins, even over what is absent
        (slots("main", "router", main="qwen3-8b"), [GEMMA, ORCHESTRATOR], ["qwen3-8b", "nvidia"]),
        (slots("main", "router", router="gemma-3n-e4b-it:Q8_0"), [GEMMA, MINISTRAL], ["ministral", "gemma"]),
        # never the same for main and router when another fits, be it the worse main model
        (slots("main", "router"), [MINISTRAL, Seen("tiny", roles={"main": 30})], ["tiny", "ministral"]),
        (slots("main", "router"), [MINISTRAL, EMBEDDER], ["ministral", "ministral"]),
        (slots("router", "main"), [GEMMA, MINISTRAL], ["ministral", "gemma"]),
        # two quantisations of one model are the same model
        (slots("main", "router"), [GEMMA, Seen("gemma-3n-e4b-it:Q8_0", roles=GEMMA.roles)], ["gemma", "gemma"]),
        (slots("main", "embedding", "vision"), [GEMMA, EMBEDDER], ["gemma", "embeddinggemma", ""]),
        (slots("main", "coding"), [GEMMA], ["gemma", "gemma"]),
        (slots("coding"), [GEMMA, Seen("x-coder-7b")], ["x-coder-7b"]),
    ],
)
def test_filling(wanted: list[ModelSlot], present: list[Seen], chosen: list[str]) -> None:
    filled = fill_slots(wanted, present)
    expected = {slot.slot: name for slot, name in zip(wanted, chosen, strict=False) if name}
    assert set(filled.models) == set(expected)
    assert all(filled.models[slot].startswith(name) for slot, name in expected.items()), filled
    assert set(filled.reasons) == {slot.slot for slot in wanted}
    for shuffled in permutations(present):
        assert fill_slots(wanted, shuffled) == filled


def test_a_slot_that_stays_empty_says_why() -> None:
    assert fill_slots(slots("vision"), [GEMMA]).reasons == {"vision": "nothing that is here can be vision"}


def test_the_larger_of_equals_comes_first() -> None:
    small, large = Seen("a", roles={"main": 50}, parameters=1), Seen("b", roles={"main": 50}, parameters=2)
    assert [found.reference for found in rank("main", [small, large])] == ["b", "a"]


PRESENT = st.lists(
    st.builds(
        Seen,
        reference=st.sampled_from(["a", "b", "c", "d:Q4_0", "d:Q8_0"]),
        roles=st.dictionaries(st.sampled_from(ROLES), st.integers(1, 100), min_size=1),
        parameters=st.integers(0, 3),
    ),
    unique_by=lambda seen: seen.reference,
    max_size=5,
)


@given(PRESENT)
def test_main_and_router_differ_whenever_they_can(present: list[Seen]) -> None:
    filled = fill_slots(slots("main", "router"), present).models
    mains, routers = ({found.reference[0] for found in rank(role, present)} for role in ("main", "router"))
    can = any(main != router for main in mains for router in routers)
    if can:
        assert filled["main"][0] != filled["router"][0]
    assert ("main" in filled) == bool(mains)
    assert ("router" in filled) == bool(routers)


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
