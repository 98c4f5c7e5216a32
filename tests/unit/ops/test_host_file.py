"""`--set NAME=VALUE`: what a value becomes."""

from __future__ import annotations

import pytest

from roost.ops.errors import RoostError
from roost.ops.host_file import parse_settings

DEFAULTS: dict[str, object] = {"text": "20.10", "number": 1, "switch": False, "made": "{{ ['a'] }}"}


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("text=20.10", "text", "20.10"),
        ("text=No", "text", "No"),
        ("text='No'", "text", "No"),
        ("text=2026-01-02", "text", "2026-01-02"),
        ("text=", "text", None),
        ("number=20", "number", 20),
        ("switch=yes", "switch", True),
        ("made=[b, c]", "made", ["b", "c"]),
    ],
)
def test_a_text_stays_what_was_written(word: str, name: str, value: object) -> None:
    assert parse_settings([word], DEFAULTS) == {name: value}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("number=abc", "a whole number"),
        ("number=1.5", "a whole number"),
        ("number=true", "a whole number"),
        ("switch=1", "true or false"),
        ("list=x", "a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(word: str, wanted: str) -> None:
    with pytest.raises(RoostError, match=f"{word.partition('=')[0]} is {wanted}") as caught:
        parse_settings([word], {**DEFAULTS, "list": ["a"]})
    assert caught.value.exit_code == 2


def test_a_value_that_refers_to_another_is_left_to_ansible() -> None:
    assert parse_settings(["number='{{ other }}'"], DEFAULTS) == {"number": "{{ other }}"}
