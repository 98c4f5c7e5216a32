"""Who is chosen among whom, and why: tables and properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.engines.base import Report, Skill, State
from roost.gateway.choice.candidates import Candidate, candidates, sifted, stronger
from roost.gateway.choice.complexity import Level, Score
from roost.gateway.choice.decide import CONFIDENCE, NO_GUESS, Guess, Reason, able, decide
from roost.gateway.choice.features import Features
from roost.gateway.routing import View

MAIN = Candidate("main", "m", ready=True, strength=8, context=8192, sees=False, calls=True)
SMALL = Candidate("router", "r", ready=True, strength=1, context=4096, sees=False, calls=False)
BIG = Candidate("specialist", "s", ready=True, strength=30, context=8192, sees=False, calls=True)
CODING = Candidate("coding", "c", ready=True, strength=20, context=8192, sees=False, calls=True)
VISION = Candidate("vision", "v", ready=True, strength=4, context=8192, sees=True, calls=False)
ALL = [MAIN, SMALL, BIG, CODING, VISION]
CODE = Guess({"coding": 0.9, "main": 0.1})


def hard(level: Level) -> Score:
    """Return a score of that level."""
    return Score(3, level, {})


LIGHT, STANDARD, HEAVY = map(hard, Level)


@pytest.mark.parametrize(
    ("among", "features", "score", "guess", "slot", "reason"),
    [
        ([MAIN], Features(), HEAVY, CODE, "main", Reason.ONLY),
        ([], Features(), STANDARD, NO_GUESS, "main", Reason.ONLY),
        ([BIG], Features(), LIGHT, NO_GUESS, "specialist", Reason.ONLY),
        (ALL, Features(), STANDARD, NO_GUESS, "main", Reason.MAIN),
        (ALL, Features(), LIGHT, NO_GUESS, "router", Reason.LIGHT),
        (ALL, Features(), HEAVY, NO_GUESS, "specialist", Reason.HEAVY),
        (ALL, Features(), STANDARD, CODE, "coding", Reason.EXPERT),
        (ALL, Features(), STANDARD, Guess({"coding": 0.5, "main": 0.5}), "main", Reason.MAIN),
        (ALL, Features(), LIGHT, Guess({"main": 0.95, "coding": 0.05}), "router", Reason.LIGHT),
        (ALL, Features(), STANDARD, Guess({"law": 0.95, "main": 0.05}), "main", Reason.MAIN),
        ([MAIN, CODING], Features(), HEAVY, NO_GUESS, "main", Reason.MAIN),  # its own subject only
        (ALL, Features(images=1), HEAVY, CODE, "vision", Reason.VISION),
        ([MAIN, SMALL], Features(images=1), STANDARD, NO_GUESS, "main", Reason.MAIN),  # nobody sees: it will be told
        ([replace(MAIN, calls=False), BIG], Features(tools=1), STANDARD, NO_GUESS, "specialist", Reason.TOOLS),
        ([MAIN, replace(BIG, context=65536)], Features(prompt_bytes=90_000), STANDARD, NO_GUESS, "specialist",
         Reason.CONTEXT),
        ([MAIN, SMALL], Features(prompt_bytes=18_000), LIGHT, NO_GUESS, "main", Reason.ONLY),
        ([MAIN, replace(CODING, ready=False)], Features(), STANDARD, CODE, "main", Reason.ONLY),
        ([replace(MAIN, ready=False), SMALL], Features(), STANDARD, NO_GUESS, "main", Reason.MAIN),
    ],
)  # fmt: skip
def test_who_is_chosen(
    among: list[Candidate], features: Features, score: Score, guess: Guess, slot: str, reason: Reason
) -> None:
    decision = decide(sifted(among, features), score, guess)
    assert (decision.slot, decision.reason) == (slot, reason), decision.among


def test_of_several_experts_the_strongest_takes_what_is_hard() -> None:
    other = replace(CODING, slot="coding-2", strength=40)
    assert decide([MAIN, CODING, other], STANDARD, CODE).slot == "coding"
    assert decide([MAIN, CODING, other], HEAVY, CODE).slot == "coding-2"


def test_without_sizes_nobody_is_taken_for_lighter_or_stronger() -> None:
    plain = [replace(one, strength=0) for one in (MAIN, SMALL, BIG)]
    assert {decide(plain, score).slot for score in (LIGHT, STANDARD, HEAVY)} == {"main"}
    assert stronger(plain, "main") == []


def test_the_next_stronger_comes_first() -> None:
    assert [one.slot for one in stronger(ALL, "router")] == ["vision", "main", "coding", "specialist"]
    assert stronger(ALL, "specialist") == []
    assert stronger(ALL, "nobody") == []
    assert [one.slot for one in stronger([MAIN, replace(BIG, ready=False)], "main")] == []


def test_the_header_is_short_and_says_why() -> None:
    assert decide(ALL, STANDARD, CODE).header() == "slot=coding; reason=expert; level=standard; confidence=0.90"
    assert decide([MAIN], LIGHT).header() == "slot=main; reason=only; level=light"


CANDIDATE = st.builds(
    Candidate,
    slot=st.sampled_from(["main", "router", "specialist", "coding", "coding-2", "vision", "law"]),
    model=st.just("m"),
    ready=st.booleans(),
    strength=st.integers(0, 5),
    context=st.none() | st.integers(256, 100_000),
    sees=st.none() | st.booleans(),
    calls=st.none() | st.booleans(),
)
FEATURES = st.builds(Features, prompt_bytes=st.integers(1, 400_000), images=st.integers(0, 1), tools=st.integers(0, 1))
GUESS = st.dictionaries(st.sampled_from(["main", "coding", "vision", "law"]), st.floats(0, 1)).map(Guess)
SCORES = st.sampled_from([LIGHT, STANDARD, HEAVY])


@given(st.lists(CANDIDATE, unique_by=lambda one: one.slot), FEATURES, SCORES, GUESS)
def test_nobody_is_chosen_who_cannot(found: list[Candidate], features: Features, score: Score, guess: Guess) -> None:
    among = sifted(found, features)
    decision = decide(among, score, guess)
    those = able(among)
    assert decision.slot in {one.slot for one in those} or (not those and decision.slot == "main")
    assert all(one.ready or one.slot == "main" for one in those)
    chosen = next((one for one in those if one.slot == decision.slot), None)
    if chosen and features.images and any(one.sees for one in those):
        assert chosen.sees
    if decision.reason is Reason.EXPERT:
        assert guess.ranked()[0][1] >= CONFIDENCE
    if chosen and len(those) == 1 and chosen.slot == "main":
        assert decision.reason is Reason.ONLY


def view(slot: str, model: str, state: State = State.READY, memory: int = 0) -> View:
    """Return an endpoint."""
    return View(f"{slot}@{model}", slot, state, (model,), memory=memory)


def test_each_slot_is_a_candidate_with_its_best_server() -> None:
    views = [view("main", "down", State.DOWN), view("main", "up"), view("embedding", "e"), view("rerank", "x")]
    views += [replace(view("cloud", "c"), by_name=True)]
    reports = {
        "main@up": Report(State.READY, context=512, sees=True, calls=False, parameters=7),
        "rerank@x": Report(State.READY, lacks=frozenset({Skill.GENERATE})),
    }
    assert candidates(views, reports) == [Candidate("main", "up", True, 7, 512, True, False)]


def test_main_is_a_candidate_before_it_was_ever_seen() -> None:
    views = [View("main@x", "main", State.LOADING), view("router", "r"), View("coding@x", "coding", State.LOADING)]
    found = candidates(views, {})
    assert [one.slot for one in found] == ["main", "router"]
    assert decide(sifted(found, Features()), LIGHT).slot == "main"


def test_strength_is_parameters_if_all_say_them_else_memory_else_what_the_site_says() -> None:
    views = [view("main", "a", memory=10), view("router", "b", memory=20), view("big", "c", State.COLD, 30)]
    reports = {
        f"{v.slot}@{v.models[0]}": Report(State.READY, parameters=n) for v, n in zip(views, (9, 5), strict=False)
    }

    def strengths(ladder: tuple[str, ...] = ()) -> dict[str, int]:
        return {one.slot: one.strength for one in candidates(views, reports, ladder)}

    assert strengths() == {"main": 9, "router": 5, "big": 0}
    reports["router@b"] = Report(State.READY)
    assert strengths() == {"main": 10, "router": 20, "big": 30}
    assert strengths(("router", "c", "main")) == {"main": 3, "router": 1, "big": 2}
