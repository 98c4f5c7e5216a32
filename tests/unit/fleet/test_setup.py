"""What setup proposes: slots to place, offers, and the variable that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.plan import Placed, Plan, Refused
from roost.fleet.setup import Asked, parse_asked, propose, slot_entries, wished_slots
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.footprint import DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.model_slots import ModelSlot, parse_slots
from roost.models.obtainable import Obtainable, Reach
from roost.ops.errors import RoostError

CATALOGUE = Path(__file__).resolve().parents[3] / "group_vars" / "models.yaml"
SMALL = "smollm2-135m-instruct"
DEFAULTS = parse_slots([{"slot": "main", "model": SMALL, "context_size": 8192, "parallel": 2, "temperature": 0.5}])
NOTHING = Asked({}, {})


def asked(models: Mapping[str, str | None] | None = None, contexts: Mapping[str, int] | None = None) -> Asked:
    return Asked(models or {}, contexts or {})


def placed(slot: str, model: str, quantisation: str, context: int = 4096) -> Placed:
    return Placed(
        slot, model, quantisation, "box", ServerSettings(context, 2), LayerSplit(),
        Estimate((DeviceBytes("CPU", 90, 180, 16, 1, 96), DeviceBytes("GPU0")), "header"), "it is the best that fits",
    )  # fmt: skip


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue(CATALOGUE, Path("/nonexistent"), custom={})


def test_options_are_read() -> None:
    found = parse_asked(["main=qwen:Q8_0", "router=auto", "vision=none", "coding=/m/x.gguf"], ["4096", "main=8192"])
    assert found.models == {"main": "qwen:Q8_0", "router": "", "vision": None, "coding": "/m/x.gguf"}
    assert found.contexts == {"": 4096, "main": 8192}


@pytest.mark.parametrize(
    ("slots", "contexts", "said"),
    [
        (["main"], [], "not SLOT=MODEL"),
        (["=x"], [], "not SLOT=MODEL"),
        (["main=a", "main=b"], [], "main twice"),
        ([], ["many"], "not a number of tokens"),
        ([], ["main=-1"], "not a number of tokens"),
        ([], ["1", "2"], "all slots twice"),
    ],
)
def test_options_that_say_nothing_are_refused(slots: list[str], contexts: list[str], said: str) -> None:
    with pytest.raises(RoostError, match=said) as caught:
        parse_asked(slots, contexts)
    assert caught.value.exit_code == 2


def test_without_own_slots_the_machines_size_has_them() -> None:
    slots, optional = wished_slots(None, DEFAULTS, ("main", "router"), NOTHING)
    assert [(s.slot, s.model, s.context_size, s.parallel, s.temperature) for s in slots] == [
        ("main", "", 0, 2, 0.5),
        ("router", "", 0, 2, 0.5),
    ]
    assert optional == {"router"}


def test_what_the_operator_named_is_kept_to() -> None:
    own = parse_slots([{"slot": "main", "model": "x", "context_size": 512, "gpu": [1]}, {"slot": "memory"}])
    assert wished_slots(own, DEFAULTS, ("main", "router"), NOTHING) == (tuple(own), frozenset())
    (main, memory), _ = wished_slots(own, DEFAULTS, (), Asked({}, {}, anew=True))
    assert (main.model, main.context_size, main.gpu) == ("", 0, [1])
    assert memory == own[1]


def test_options_win() -> None:
    own = parse_slots([{"slot": "main", "model": "x"}, {"slot": "router", "model": "y"}])
    wishes = asked({"router": None, "coding": "z:Q8_0", "main": "/m/f.gguf"}, {"": 1024, "coding": 2048})
    slots, _ = wished_slots(own, DEFAULTS, (), wishes)
    assert [(s.slot, s.model, s.path, s.context_size) for s in slots] == [
        ("main", "", "/m/f.gguf", 1024),
        ("coding", "z:Q8_0", "", 2048),
    ]


def test_a_slot_that_is_asked_for_is_not_optional() -> None:
    _, optional = wished_slots(None, DEFAULTS, ("main", "router", "specialist"), asked({"router": ""}))
    assert optional == {"specialist"}


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (asked({"main": None}), "No slot would be left"),
        (asked({}, {"vision": 512}), "no slot 'vision'"),
        (asked({"Main!": "x"}), "model_slots is not valid"),
        (asked({}, {"main": 5}), "model_slots is not valid"),
    ],
)
def test_wishes_that_cannot_be_are_refused(wishes: Asked, said: str) -> None:
    with pytest.raises(RoostError, match=said):
        wished_slots(None, DEFAULTS, ("main",), wishes)


@given(
    st.lists(st.sampled_from(["main", "router", "coding"]), unique=True),
    st.dictionaries(st.sampled_from(["main", "router", "vision"]), st.sampled_from([None, "", "m:Q8_0", "/f.gguf"])),
    st.dictionaries(st.sampled_from(["", "main"]), st.integers(256, 4096)),
)
def test_no_slot_comes_twice_and_none_is_lost(
    own: list[str], models: dict[str, str | None], contexts: dict[str, int]
) -> None:
    expected = {n for n in {*own, *models} if models.get(n, "") is not None}
    try:
        slots, _ = wished_slots([ModelSlot(slot=n) for n in own], DEFAULTS, (), Asked(models, contexts))
    except RoostError:
        assert not expected or ("main" in contexts and "main" not in expected)
        return
    assert sorted(s.slot for s in slots) == sorted(expected)
    for slot in slots:
        assert slot.context_size == contexts.get(slot.slot, contexts.get("", 0))
        assert (slot.path or slot.model) == (models.get(slot.slot) or "")


def test_a_plan_becomes_offers_and_entries(catalogue: Catalogue) -> None:
    slots = parse_slots(
        [{"slot": "main", "parallel": 2, "gpu": "none"}, {"slot": "vision"}, {"slot": "coding", "path": "/m/f.gguf"}]
    )
    name, entry = next((n, e) for n, e in catalogue.entries.items() if len(e.quantisations) > 1)
    quantisation = list(entry.quantisations)[-1]
    plan = Plan(
        (placed("coding", "/m/f.gguf", ""), placed("main", name, quantisation, 2048)),
        (Refused("vision", "", "no room", "less of it"),),
        ("main: …",),
    )
    proposal = propose(plan, slots, catalogue, Obtainable(catalogue, Reach()))
    main, coding = proposal.offers
    assert (main.slot, main.model, main.context_size) == ("main", f"{name}:{quantisation}", 2048)
    assert (main.title, main.licence, main.memory) == (entry.title, entry.licence, (("CPU", 383),))
    assert (coding.model, coding.title, coding.download) == ("/m/f.gguf", "f.gguf", 0)
    assert [r.slot for r in proposal.refused] == ["vision"]
    entries = slot_entries(proposal, catalogue)
    assert entries == [
        {"slot": "main", "model": f"{name}:{quantisation}", "context_size": 2048, "parallel": 2, "cache_ram_mib": 256,
         "temperature": None, "gpu": "none"},
        {"slot": "coding", "path": "/m/f.gguf", "context_size": 4096, "parallel": 1, "cache_ram_mib": 256,
         "temperature": None},
    ]  # fmt: skip
    assert [s.context_size for s in parse_slots(entries)] == [2048, 4096]


def test_the_embedded_default_is_written_as_group_vars_do(catalogue: Catalogue) -> None:
    slots: Any = parse_slots([{"slot": "main"}])
    plan = Plan((placed("main", SMALL, "Q4_1"),))
    reach = Reach()
    proposal = propose(plan, slots, catalogue, Obtainable(catalogue, reach))
    assert slot_entries(proposal, catalogue)[0]["model"] == SMALL
    file = catalogue.get(SMALL).file
    assert proposal.download == file.bytes
    here = propose(plan, slots, catalogue, Obtainable(catalogue, Reach(frozenset({file.sha256}))))
    assert here.download == 0
