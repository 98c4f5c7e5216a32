"""Which of the models that are there answers a request for `auto`, and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from roost.gateway.choice.candidates import Candidate
from roost.gateway.choice.complexity import Level, Score
from roost.gateway.routing import MAIN_SLOT

CONFIDENCE = 0.7  # what the router's first guess must have to be heeded


class Reason(StrEnum):
    """Why a model was chosen; the words of the header, the log and the metrics."""

    ONLY = "only"  # there is no other
    VISION = "vision"  # main cannot see
    CONTEXT = "context"  # main's context is too small
    TOOLS = "tools"  # main calls no tools
    EXPERT = "expert"  # the router knows whose subject it is
    LIGHT = "light"  # a lighter model will do
    HEAVY = "heavy"  # a stronger one is there
    MAIN = "main"  # none of that
    LEFT = "left"  # what had been chosen was gone when its turn came


NEEDS = {"cannot see": Reason.VISION, "context too small": Reason.CONTEXT, "no tool calls": Reason.TOOLS}


@dataclass(frozen=True)
class Guess:
    """What the semantic router says: how likely each subject is. Empty: it was not asked, or has nothing to say."""

    probabilities: Mapping[str, float]

    @property
    def subject(self) -> str:
        """Return the most likely subject, or nothing if it is not clear enough."""
        ranked = self.ranked()
        return ranked[0][0] if ranked and ranked[0][1] >= CONFIDENCE else ""

    def ranked(self) -> list[tuple[str, float]]:
        """Return all subjects, the most likely first."""
        return sorted(self.probabilities.items(), key=lambda pair: (-pair[1], pair[0]))


NO_GUESS = Guess({})
VISION = "vision"  # a subject only of a request with images


def seen(guess: Guess, *, images: bool) -> Guess:
    """Return a guess in the light of whether there is an image: without one nothing is about it."""
    if images or VISION not in guess.probabilities:
        return guess
    left = {name: value for name, value in guess.probabilities.items() if name != VISION}
    total = sum(left.values())
    return Guess({name: value / total for name, value in left.items()} if total else {})


@dataclass(frozen=True)
class Decision:
    """Which slot was chosen, why, and among whom. `slot` is main where nothing better is there."""

    slot: str
    model: str
    reason: Reason
    score: Score
    guess: Guess
    among: tuple[Candidate, ...]

    def header(self) -> str:
        """Return it as the header `x-roost-route` has it."""
        words = [f"slot={self.slot}", f"reason={self.reason.value}", f"level={self.score.level.value}"]
        if self.guess.probabilities:
            words.append(f"confidence={self.guess.ranked()[0][1]:.2f}")
        return "; ".join(words)


def able(among: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that nothing rules out."""
    return [one for one in among if not one.why_not]


def decide(among: Sequence[Candidate], score: Score, guess: Guess = NO_GUESS) -> Decision:
    """Choose among candidates of which `sifted` has said who cannot.

    First what the request needs, then whose subject it is if the router is sure of it, then how hard it is; else main.
    """
    those = able(among)
    main = next((one for one in among if one.slot == MAIN_SLOT), None)
    if not those or (len(those) == 1 and (main is None or not main.why_not)):
        chosen, reason = (those[0] if those else main), Reason.ONLY
    elif main is None or main.why_not:
        need = NEEDS.get(main.why_not, Reason.ONLY) if main else None
        chosen, reason = _among(those, None, score, guess)
        reason = need or reason
    else:
        chosen, reason = _among(those, main, score, guess)
    slot, model = (chosen.slot, chosen.model) if chosen else (MAIN_SLOT, "")
    return Decision(slot, model, reason, score, guess, tuple(among))


def _among(those: Sequence[Candidate], main: Candidate | None, score: Score, guess: Guess) -> tuple[Candidate, Reason]:
    """Choose among those who can; without main the strongest stands in its place."""
    by_strength = sorted(those, key=lambda one: (one.strength, one.slot))
    usual = main or by_strength[-1]
    subject = guess.subject
    experts = [one for one in by_strength if subject != MAIN_SLOT and subject and one.expert_in(subject)]
    if experts:
        named = next((one for one in experts if one.slot == subject), experts[0])
        return (experts[-1] if score.level is Level.HEAVY else named), Reason.EXPERT
    general = [one for one in by_strength if one.for_all and one.strength and usual.strength]
    if score.level is Level.LIGHT and general and general[0].strength < usual.strength:
        return general[0], Reason.LIGHT
    if score.level is Level.HEAVY and general and general[-1].strength > usual.strength:
        return general[-1], Reason.HEAVY
    return usual, Reason.MAIN
