"""Names that stand for others."""

from __future__ import annotations

import pytest

from roost.gateway.names import also_called, meaning

ALIASES = {"gpt-4o": "main", "small": "tiny", "boss": "specialist"}


@pytest.mark.parametrize(
    ("name", "offered", "expected"),
    [
        ("auto", {"main", "tiny"}, "main"),
        ("router", {"main", "tiny"}, "main"),
        ("router", {"main", "router"}, "router"),
        ("embedding", {"main"}, "embedding"),  # nothing stands in for it
        ("gpt-4o", {"main"}, "main"),
        ("gpt-4o", {"main", "gpt-4o"}, "gpt-4o"),  # a model that is there goes before an alias
        ("small", {"tiny"}, "tiny"),
        ("boss", {"main"}, "main"),
        ("gpt-4o+pirate", {"main"}, "main+pirate"),
        ("auto+pirate", {"main"}, "main+pirate"),
        ("nobody", {"main"}, "nobody"),
        ("+", {"main"}, "+"),
    ],
)
def test_a_name_leads_to_what_it_stands_for(name: str, offered: set[str], expected: str) -> None:
    assert meaning(name, offered, ALIASES) == expected


def test_a_slot_knows_its_names() -> None:
    assert also_called("main", {"main"}, ALIASES) == [
        "auto",
        "main",
        "router",
        "specialist",
        "memory",
        "boss",
        "gpt-4o",
    ]
    assert also_called("main", {"main", "router"}, {}) == ["auto", "main", "specialist", "memory"]
    assert also_called("vision", {"main", "vision"}, {}) == ["vision"]
