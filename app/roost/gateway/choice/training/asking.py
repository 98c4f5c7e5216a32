"""Examples from the fleet's own models, asked through the gateway for requests of each subject."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from roost.gateway.choice.training.examples import Example, distinct

# What a model is told that a subject is; one that is not here is described by its name.
ABOUT = {
    "main": "a friendly general assistant: conversation, knowledge, advice, writing, translation",
    "coding": "a programmer: write, fix, explain and review code, queries, scripts and their tools",
    "specialist": "an assistant that acts with tools: files, commands, searches, calendars, devices, services",
    "memory": "a note-taker: summarise, extract facts from a given text, remember, recall",
    "vision": "somebody who looks at pictures: describe, read, count, compare what a photo or chart shows",
}
KINDS = (
    "short and casual",
    "long and precise",
    "polite",
    "from a beginner",
    "from an expert",
    "in German",
    "in French",
)
LEAST_CHARS, MOST_CHARS = 8, 400
MOST_AT_ONCE = 10  # requests that a model is asked for; small ones lose the thread
MARK = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])?\s*")
Ask = Callable[[str], str]


def question(subject: str, kind: str, count: int) -> str:
    """Return what a model is asked for."""
    who = ABOUT.get(subject, f"an expert in {subject.replace('-', ' ')}")
    return (
        f"Write {count} different requests that people would send to {who}. They are {kind}. "
        "Write one request a line, without numbers and without answers."
    )


def requests_in(answer: str) -> Iterator[str]:
    """Yield what looks like requests in a model's answer: lines of a sensible length, without their marks."""
    for line in answer.splitlines():
        text = MARK.sub("", line).strip().strip('"')
        if LEAST_CHARS <= len(text) <= MOST_CHARS and not text.endswith(":"):
            yield text


def ask_for_examples(
    subjects: Sequence[str], each: int, ask: Ask, *, progress: Callable[[str, int], None] | None = None
) -> list[Example]:
    """Return up to `each` examples of each subject; `ask` returns a model's answer.

    What one answer gave is one group: a model repeats itself. A model that gives nothing new any more is not asked on.
    """
    found: list[Example] = []
    for subject in subjects:
        mine: list[Example] = []
        for kind in KINDS:
            if len(mine) >= each:
                break
            answer = ask(question(subject, kind, min(MOST_AT_ONCE, each)))
            new = [Example(text=text, subject=subject, group=f"asked/{subject}/{kind}") for text in requests_in(answer)]
            mine = list(distinct([*mine, *new]))[:each]
            if progress:
                progress(subject, len(mine))
        found += mine
    return found
