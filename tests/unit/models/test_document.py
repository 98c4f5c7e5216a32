"""docs/models.md says what the catalogue says, and every entry of the catalogue says enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.models.catalogue import load_catalogue
from roost.models.document import catalogue_page
from roost.models.schema import ROLES, TIERS, ListedEntry

ROOT = Path(__file__).parents[3]
CATALOGUE = load_catalogue(ROOT / "group_vars/models.yaml", custom={})


def test_the_page_fits_the_catalogue() -> None:
    assert (ROOT / "docs/models.md").read_text() == catalogue_page(CATALOGUE), (
        "run: PYTHONPATH=app python -m roost.models.document > docs/models.md"
    )


@pytest.mark.parametrize("entry", CATALOGUE.entries.values(), ids=CATALOGUE.entries)
def test_an_entry_says_where_it_is_from_and_is_consistent(entry: ListedEntry) -> None:
    assert entry.facts
    assert entry.shape or any(line.startswith("shape") for line in entry.missing)
    assert (
        entry.engine
        or entry.tier == "embedded"
        or any(line.startswith("engine") for line in entry.missing)
        or (
            entry.architecture == "llama"  # known to every build
        )
    )
    if entry.shape:
        layers = entry.shape["block_count"]
        assert entry.shape["context_length"] == entry.context_length
        assert all(len(v) in (layers, 4) for v in entry.shape.values() if isinstance(v, list))
    if "Q4_K_M" in entry.quantisations:
        assert next(iter(entry.quantisations)) == "Q4_K_M"


def test_the_trio_the_candidates_and_every_role_and_tier_are_there() -> None:
    entries = CATALOGUE.entries
    best = {role: max(entries, key=lambda name: entries[name].roles.get(role, 0)) for role in ROLES}
    assert (best["main"], best["router"]) == ("gemma-3n-e4b-it", "nvidia_orchestrator-8b")
    small = {n: e.roles.get("specialist", 0) for n, e in entries.items() if e.tier in ("embedded", "potato", "sweet")}
    assert max(small, key=lambda name: small[name]) == "ministral-3-8b-instruct-2512"
    assert {"nanbeige4.1-3b", "qwen3-8b", "qwen3-30b-a3b", "glm-4.7-flash"} <= set(entries)
    assert entries["nanbeige4.1-3b"].quirks.prefill == "<think>\n"
    assert all(any(role in entry.roles for entry in entries.values()) for role in ROLES)
    assert {entry.tier for entry in entries.values()} == set(TIERS)
    assert any(entry.projector for entry in entries.values() if "vision" in entry.roles)


def test_what_users_write_of_a_candidate_is_understood() -> None:
    """Its name at other places has a colon where ours has a dash."""
    assert CATALOGUE.listed("qwen3:8b").name == "qwen3-8b"
    assert CATALOGUE.listed("qwen3:30b-a3b").name == "qwen3-30b-a3b"
