"""Examples of what people ask, by whose subject it is: from our templates, and from files of the user's."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.gateway.choice.semantic import SUBJECT
from roost.ops.errors import RoostError
from roost.ops.validation import in_words

PACKAGE = "roost.gateway.choice.training"
TEMPLATE_FILES = ("examples_en.yaml", "vocabulary.yaml", "examples_more.yaml")
WRITTEN_FILE, NATURAL_FILE = "written.yaml", "natural.yaml"
ENGLISH = "en"
HOLE = re.compile(r"\{(\w+)\}")
EACH = 12  # examples made from one template, or a third of the longest list that it is filled from
PASSAGE, SENTENCES = "passage", "sentences"  # a passage is one to four of these sentences where a language has them
HELD_OUT, VALIDATED = 0.2, 0.15  # shares of the templates
BAD_INPUT = 2


Part = Literal["train", "validation", "held-out"]


class Example(BaseModel):
    """One request and whose subject it is.

    Examples of one `group` are near to each other: all of them are trained on, or none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = Field(min_length=1, max_length=20_000)
    subject: str = Field(pattern=SUBJECT)
    group: str = ""

    def line(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(self.model_dump(exclude_defaults=True), ensure_ascii=False)


@dataclass(frozen=True)
class Split:
    """What to train on, what to set the temperature by, what to measure with; no group is in two of them."""

    train: list[Example]
    validation: list[Example]
    held_out: list[Example]


class _Language(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subjects: dict[str, list[str]]
    fillers: dict[str, list[str]] = Field(default_factory=dict)


def shipped_examples(seed: int = 0, each: int = EACH) -> list[Example]:
    """Return all examples that the shipped router is trained on: those of our templates, and those that we wrote."""
    return list(distinct([*from_templates(seed, each), *_by_subject(WRITTEN_FILE)]))


def from_templates(seed: int = 0, each: int = EACH) -> list[Example]:
    """Make the examples of our templates: of each at most `each`, the same ones for the same seed.

    Templates that are held out are filled from words that no template for training gets, so that of what is measured
    nothing was seen in training.
    """
    found: list[Example] = []
    english, vocabulary, others = (yaml.safe_load(_read(name)) for name in TEMPLATE_FILES)
    common = {**english["fillers"], **vocabulary["fillers"]}
    languages = {ENGLISH: _Language.model_validate(english), "words": _Language.model_validate(vocabulary)}
    languages |= {name: _Language.model_validate(value) for name, value in others.items()}
    for language, what in languages.items():
        fillers = {**common, **what.fillers}
        for subject, templates in what.subjects.items():
            for number, template in enumerate(templates):
                group = f"{language}/{subject}/{number}"
                part = _part(group, seed)
                words = {name: _part_of(values, part) for name, values in fillers.items()}
                texts = _filled(template, words, random.Random(f"{seed}/{group}"), each)  # noqa: S311  # the same examples each time, no secret
                found += [Example(text=text, subject=subject, group=group) for text in texts]
    return found


def _filled(template: str, fillers: Mapping[str, Sequence[str]], chance: random.Random, each: int) -> list[str]:
    names = HOLE.findall(template)
    if not names:
        return [template]

    def word(hole: re.Match[str]) -> str:
        if hole[1] == PASSAGE and chance.random() < 0.7 and fillers[PASSAGE][0].isascii():
            return " ".join(chance.sample(fillers[SENTENCES], chance.randint(1, 4)))
        return chance.choice(fillers[hole[1]])

    count = max(each, *(len(fillers[name]) // 3 for name in names))
    return list(dict.fromkeys(_as_typed(HOLE.sub(word, template), chance) for _ in range(count)))


def _as_typed(text: str, chance: random.Random) -> str:
    """Return a text as some people type it: without capitals, without the last mark, or with a word before it."""
    if chance.random() < 0.25:
        text = text[:1].lower() + text[1:] if chance.random() < 0.5 else text.lower()
    return text.rstrip(".?!") if chance.random() < 0.2 else text


def _part(group: str, seed: int) -> Part:
    """Return which part a group belongs to: by nothing but its own name, so that it stays there when others come."""
    share = int.from_bytes(hashlib.sha256(f"{seed}/{group}".encode()).digest()[:4], "big") / 2**32
    return "held-out" if share < HELD_OUT else "validation" if share < HELD_OUT + VALIDATED else "train"


def _part_of(values: Sequence[str], part: Part) -> Sequence[str]:
    """Return a fifth of the fillers for each part that is not trained on, the others for training."""
    kept = {"held-out": (0,), "validation": (1,), "train": (2, 3, 4)}[part]
    return [value for number, value in enumerate(values) if number % 5 in kept] or values


def natural() -> list[Example]:
    """Return the requests that routers are measured with, and that none is ever trained on."""
    return _by_subject(NATURAL_FILE)


def _by_subject(name: str) -> list[Example]:
    found = yaml.safe_load(_read(name))
    return [Example(text=text, subject=subject) for subject, texts in found.items() for text in texts]


def split(examples: Iterable[Example], seed: int = 0) -> Split:
    """Split by group; an example without one is a group of its own."""
    parts = Split([], [], [])
    lists = {"train": parts.train, "validation": parts.validation, "held-out": parts.held_out}
    for example in examples:
        lists[_part(example.group or " ".join(example.text.lower().split()), seed)].append(example)
    return parts


def read_examples(path: Path) -> list[Example]:
    """Read examples: one JSON object a line with `text` and `subject`.

    Raises:
        RoostError: the file cannot be read, or a line is something else.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RoostError(f"{path} cannot be read: {error}.", fix="Name a file of examples.") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Example.model_validate_json(line))
        except ValidationError as error:
            raise RoostError(
                f"{path}, line {number}: {in_words(error)}.",
                fix='Write one object a line: {"text": "…", "subject": "coding"}.',
                exit_code=BAD_INPUT,
            ) from None
    return found


def distinct(examples: Iterable[Example]) -> Iterator[Example]:
    """Leave out what was there before, whatever its blanks and capitals are."""
    seen: set[str] = set()
    for example in examples:
        text = " ".join(example.text.lower().split())
        if text not in seen:
            seen.add(text)
            yield example


def digest_of(examples: Iterable[Example]) -> str:
    """Return a name for a set of examples, in whatever order they are."""
    lines = sorted(example.line() for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _read(name: str) -> str:
    return (files(PACKAGE) / name).read_text()
