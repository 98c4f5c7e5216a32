"""Examples, how they are split, and what is learnt from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.gateway.choice.semantic import LinearRouter, shipped
from roost.gateway.choice.training.examples import (
    Example,
    digest_of,
    distinct,
    from_templates,
    natural,
    read_examples,
    shipped_examples,
    split,
)
from roost.gateway.choice.training.fit import MOST_BYTES, measure, train
from roost.ops.errors import RoostError

SUBJECTS = {"coding", "main", "memory", "specialist", "vision"}


def simple(count: int = 40) -> list[Example]:
    """Return examples that one word tells apart."""
    words = {"coding": "compiler", "law": "contract"}
    texts = [f"{word} question {n} about a {word}" for n in range(count) for word in words.values()]
    return [Example(text=text, subject="coding" if "compiler" in text else "law") for text in texts]


def test_the_same_seed_makes_the_same_examples() -> None:
    assert from_templates(3, 2) == from_templates(3, 2)
    assert digest_of(from_templates(3, 2)) != digest_of(from_templates(4, 2))
    assert {example.subject for example in shipped_examples()} == SUBJECTS


def test_nothing_that_is_measured_with_was_seen_in_training() -> None:
    parts = split(from_templates())
    groups = [{example.group for example in part} for part in (parts.train, parts.validation, parts.held_out)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    texts = {example.text.lower() for example in parts.train}
    assert sum(example.text.lower() in texts for example in parts.held_out) <= 0.02 * len(parts.held_out)
    for part in (parts.train, parts.validation, parts.held_out):
        assert {example.subject for example in part} == SUBJECTS


def test_what_people_wrote_for_measuring_is_never_trained_on() -> None:
    trained = {example.text.lower() for example in shipped_examples()}
    assert not [example.text for example in natural() if example.text.lower() in trained]


def test_the_shipped_router_is_made_of_the_present_examples_and_as_good_as_it_says() -> None:
    file = shipped().file
    fix = "run `python -m roost.gateway.choice.training.ship`"
    assert file.digest == digest_of(shipped_examples()), fix
    assert file.natural == measure(shipped(), natural()), fix
    assert file.held_out
    assert len(file.text()) <= MOST_BYTES
    assert file.natural.right >= 0.75
    assert file.natural.right_when_sure >= 0.9
    assert file.held_out.right_when_sure >= 0.8


def test_what_was_learnt_is_kept_in_the_file() -> None:
    told: list[tuple[int, int]] = []
    file = train(simple(), origin="test", progress=lambda epoch, of, _loss: told.append((epoch, of)))
    router = LinearRouter(file)
    assert router.guess("my compiler complains").ranked()[0][0] == "coding"
    assert router.guess("is this contract valid").ranked()[0][0] == "law"
    assert (file.subjects, file.origin, file.examples) == (("coding", "law"), "test", 80)
    assert file.held_out
    assert file.held_out.right == 1.0
    assert told[0][0] == 1
    assert len(told) == 2 * told[0][1]


def test_many_subjects_still_fit_into_what_nomad_takes() -> None:
    examples = [
        Example(text=f"{chr(97 + n % 26) * 7}{n} {s * 3} word{n * s}", subject=f"subject-{s}")
        for s in range(20)
        for n in range(12)
    ]
    assert len(train(examples, origin="test").text()) <= MOST_BYTES


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "only one subject"),
        (simple(3), "Fewer than 10 examples of coding, law"),
        ([example for example in simple() if example.subject == "law"], "only one subject"),
    ],
)
def test_too_little_is_refused(examples: list[Example], said: str) -> None:
    with pytest.raises(RoostError, match=said):
        train(examples, origin="test")


def test_examples_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "x", "subject": "law", "more": 1}\n\n{"text": "X ", "subject": "law"}\n')
    assert read_examples(path) == [Example(text="x", subject="law"), Example(text="X ", subject="law")]
    assert len(list(distinct(read_examples(path)))) == 1
    path.write_text('{"text": "x", "subject": "No Slot"}')
    with pytest.raises(RoostError, match="line 1: subject"):
        read_examples(path)
    path.write_text("no json")
    with pytest.raises(RoostError, match="line 1"):
        read_examples(path)
    with pytest.raises(RoostError, match="cannot be read"):
        read_examples(tmp_path / "none")
