"""How hard a request is: a deterministic score from its features. Pure; every number of it stands here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from roost.gateway.choice.features import Features


class Level(StrEnum):
    """What a request needs: any model, the usual one, or the strongest."""

    LIGHT = "light"
    STANDARD = "standard"
    HEAVY = "heavy"


STANDARD_FROM, HEAVY_FROM = 2, 6  # points
# From how many on a feature is worth how many points; the highest that is reached counts.
CHARS = ((240, 1), (1200, 2), (4000, 3))
PROMPT_BYTES = ((8_000, 1), (32_000, 2))
CODE = ((1, 2), (15, 3))
STEPS = ((2, 1), (4, 2))
QUESTIONS = ((3, 1),)
MATHS = ((1, 1), (4, 2))
THOUGHT = ((1, 2), (2, 3), (4, 4))
TOOLS = ((1, 2), (8, 3))
TURNS = ((6, 1),)
IMAGES = ((1, 2),)
ANSWER_TOKENS = ((4096, 1),)
SCHEMA_POINTS = 1
EFFORT_POINTS = {"none": -2, "minimal": -2, "low": -1, "high": 4, "xhigh": 6}


@dataclass(frozen=True)
class Score:
    """Points, what they mean, and for which features they were given."""

    points: int
    level: Level
    parts: dict[str, int]


def score(features: Features) -> Score:
    """Return how hard a request is."""
    given = {
        "chars": _points(features.chars, CHARS),
        "prompt_bytes": _points(features.prompt_bytes, PROMPT_BYTES),
        "code": _points(features.code, CODE),
        "steps": _points(features.steps, STEPS),
        "questions": _points(features.questions, QUESTIONS),
        "maths": _points(features.maths, MATHS),
        "thought": _points(features.thought, THOUGHT),
        "tools": _points(features.tools, TOOLS),
        "turns": _points(features.turns, TURNS),
        "images": _points(features.images, IMAGES),
        "answer_tokens": _points(features.answer_tokens, ANSWER_TOKENS),
        "schema": SCHEMA_POINTS if features.schema else 0,
        "effort": EFFORT_POINTS.get(features.effort, 0),
    }
    points = max(0, sum(given.values()))
    level = Level.HEAVY if points >= HEAVY_FROM else Level.STANDARD if points >= STANDARD_FROM else Level.LIGHT
    return Score(points, level, {name: value for name, value in given.items() if value})


def _points(value: int, steps: Sequence[tuple[int, int]]) -> int:
    return max((points for least, points in steps if value >= least), default=0)
