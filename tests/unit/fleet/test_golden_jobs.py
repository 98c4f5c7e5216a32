"""The jobs of each vendor and driver, line by line: see `golden_jobs` for how to renew them."""

from __future__ import annotations

import os

import pytest

from tests.unit.fleet.golden_jobs import GOLDEN, texts

TEXTS = texts()


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_job_is_what_it_was(name: str) -> None:
    path = GOLDEN / name
    if os.environ.get("ROOST_RENEW_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEXTS[name])
    assert TEXTS[name] == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(TEXTS)


def test_the_same_wish_gives_the_same_text() -> None:
    assert texts() == TEXTS
