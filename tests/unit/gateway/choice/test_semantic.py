"""The semantic router: what it sees of a text, the file it is read from, and the one that comes with Roost."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.gateway.choice.decide import VISION, Guess, seen
from roost.gateway.choice.grams import HEAD_CHARS, TAIL_CHARS, clipped, vector
from roost.gateway.choice.semantic import LinearRouter, RouterFile, WatchedRouter, parse_router, shipped
from tests.support.gateway import REPOSITORY

BUCKETS = 256


def tiny(**more: object) -> RouterFile:
    """Return a router of two subjects to which only the word `alpha` means something."""
    rows = bytearray(2 * BUCKETS)
    bucket = zlib.crc32(b"walpha") & (BUCKETS - 1)
    rows[2 * bucket] = 127
    values: dict[str, object] = {
        "subjects": ("coding", "main"), "buckets": BUCKETS, "scales": (1.0, 1.0), "biases": (0.0, 0.0),
        "temperature": 1.0, "weights": base64.b64encode(zlib.compress(bytes(rows))).decode(),
    }  # fmt: skip
    return RouterFile.model_validate(values | more)


@given(st.text())
def test_any_text_is_a_vector_of_length_one_or_nothing(text: str) -> None:
    found = vector(text, 1024)
    assert all(0 <= bucket < 1024 for bucket in found)
    assert math.isclose(sum(weight * weight for weight in found.values()), 1.0)
    assert found == vector(text, 1024)


def test_of_a_long_text_both_ends_are_seen() -> None:
    long = "summarise this " + "x " * 5000 + "in one sentence"
    assert len(clipped(long)) == HEAD_CHARS + TAIL_CHARS + 1
    assert clipped(long).startswith("summarise")
    assert clipped(long).endswith("sentence")


@settings(deadline=None)
@given(st.text(), st.floats(0.05, 50))
def test_probabilities_add_up_to_one(text: str, temperature: float) -> None:
    found = LinearRouter(tiny(temperature=temperature)).guess(text).probabilities
    assert math.isclose(sum(found.values()), 1.0)
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"format": 2}, "format"),
        ({"buckets": 255}, "power of two"),
        ({"buckets": 128}, "another size"),
        ({"weights": "!"}, "cannot be read"),
        ({"weights": base64.b64encode(b"no zlib").decode()}, "cannot be read"),
        ({"scales": [1.0]}, "do not belong together"),
        ({"subjects": ["main", "main"]}, "do not belong together"),
    ],
)
def test_a_file_that_is_no_router_says_why(more: dict[str, object], said: str) -> None:
    document = json.loads(tiny().text()) | more
    with pytest.raises(ValueError, match=said):
        parse_router(json.dumps(document))


def test_a_small_file_cannot_fill_the_memory() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(64 << 20))).decode()
    with pytest.raises(ValueError, match="another size"):
        parse_router(json.dumps(json.loads(tiny().text()) | {"weights": bomb}))


def test_without_an_image_nothing_is_about_one() -> None:
    guess = Guess({VISION: 0.8, "main": 0.15, "coding": 0.05})
    assert seen(guess, images=True) is guess
    assert seen(guess, images=False).probabilities == pytest.approx({"main": 0.75, "coding": 0.25})
    assert seen(Guess({VISION: 1.0}), images=False).probabilities == {}


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("Write a Rust function that reverses a linked list, with unit tests.", "coding"),
        ("Schreibe eine Funktion in Python, die Primzahlen findet.", "coding"),
        ("Summarise the following text in three sentences: The house is old. It has a garden.", "memory"),
        ("Restart the web server and show me the last lines of its log.", "specialist"),
        ("Write a birthday poem for my grandmother.", "main"),
    ],
)
def test_the_shipped_router_knows_the_plain_cases(text: str, subject: str) -> None:
    assert seen(shipped().guess(text), images=False).subject == subject


def test_a_new_file_is_used_at_once_and_a_broken_one_never(tmp_path: Path) -> None:
    path = tmp_path / "router"
    path.write_text("")
    router = WatchedRouter(path)
    assert router.present is shipped()
    path.write_text(tiny().text())
    assert router.present.file == tiny()
    assert set(router.guess("alpha").probabilities) == {"coding", "main"}
    assert router.guess("  ").probabilities == {}
    path.write_text('{"format": 9}')
    assert router.present.file == tiny()
    path.unlink()
    assert router.present.file == tiny()


def test_the_gateway_needs_no_numpy(tmp_path: Path) -> None:
    code = (
        "import sys; from roost.gateway.app import build; from roost.gateway.choice.semantic import shipped; "
        "shipped().guess('hello'); print([m for m in ('numpy', 'yaml') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "app")}
    said = subprocess.check_output([sys.executable, "-c", code], env=env, cwd=tmp_path, text=True)
    assert said.strip() == "[]"
