"""Which cost mode holds, and that nothing beside the table says what a mode is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import roost
from roost.context import budget
from roost.context.budget import DEFAULT_MODE, MODES, CostMode
from roost.context.modes import Chosen, Origin, chosen_mode, parse_mode, set_cost_mode
from roost.ops.api_keys import KeyDocument, parse_document
from roost.ops.errors import RoostError

NAMES = ("SESSION_BYTES", "UNCOMPACTED", "COST_MODE", "CONTEXT_SHARE", "PROMPT_TOKENS", "HEAD_SHARE", "LITE_SHARE")
ROOMS = ("context", "agent", "durable", "gateway", "cli", "web")


def test_the_session_wins_over_the_override_over_the_files() -> None:
    document = KeyDocument()
    assert chosen_mode(document.cost_mode) == Chosen(DEFAULT_MODE, Origin.DEFAULT)
    assert chosen_mode(document.cost_mode, "fast") == Chosen(CostMode.FAST, Origin.DEFAULT)
    changed = set_cost_mode(document, CostMode.MAX)
    assert chosen_mode(changed.cost_mode, "fast") == Chosen(CostMode.MAX, Origin.OVERRIDE)
    assert chosen_mode(changed.cost_mode, "fast", CostMode.SMART) == Chosen(CostMode.SMART, Origin.SESSION)
    assert chosen_mode(set_cost_mode(changed, None).cost_mode, "fast").origin is Origin.DEFAULT


def test_the_override_is_kept_with_the_limits() -> None:
    changed = set_cost_mode(KeyDocument(), CostMode.FAST)
    assert parse_document(changed.text()) == changed
    assert "cost_mode" not in KeyDocument().text()


def test_a_mode_that_there_is_not_is_said() -> None:
    with pytest.raises(RoostError, match="no cost mode 'cheap'"):
        parse_mode("cheap")
    assert parse_mode(" Smart ") is CostMode.SMART


def test_no_other_constant_says_what_a_mode_is() -> None:
    """Neither a number of the modes nor a name like theirs stands in another file of these rooms."""
    numbers = {allowed.session_bytes for allowed in MODES.values()}
    found = []
    for path in (path for room in ROOMS for path in (Path(roost.__file__).parent / room).rglob("*.py")):
        if path != Path(budget.__file__):
            found += [f"{path.name}: {what}" for what in shadows(path.read_text(), numbers)]
    assert found == []


def test_a_shadow_would_be_found() -> None:
    numbers = {allowed.session_bytes for allowed in MODES.values()}
    assert shadows("LIMIT = 500_000\nSESSION_BYTES: int = 3\nx = 0.9\n", numbers) == ["500000", "SESSION_BYTES"]


def shadows(text: str, numbers: set[int | None]) -> list[str]:
    """Return the numbers and names of a source text that say what only the table may say."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in numbers:
            found.append(str(node.value))
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        found += [target.id for target in targets if isinstance(target, ast.Name) and target.id.startswith(NAMES)]
    return sorted(found)
