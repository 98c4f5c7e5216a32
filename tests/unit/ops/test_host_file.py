"""`--set NAME=VALUE`: what a value becomes."""

from __future__ import annotations

import pytest

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
