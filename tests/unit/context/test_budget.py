"""Cost modes: one table, one function, every threshold from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.context.budget import DEFAULT_MODE, LITE_SHARES, MODES, CostMode, bounds
from roost.ops.errors import RoostError

CONTEXTS = st.integers(16, 2_000_000)
REPLIES = st.integers(0, 100_000)


def test_the_modes_are_those_that_were_promised() -> None:
    fast, smart = MODES[CostMode.FAST], MODES[CostMode.SMART]
    assert (fast.session_bytes, fast.uncompacted_turns) == (500_000, 5)
    assert (smart.session_bytes, smart.uncompacted_turns) == (2_000_000, 20)
    assert DEFAULT_MODE is CostMode.SMART


@given(st.sampled_from(CostMode), CONTEXTS, REPLIES)
def test_prompt_and_reply_stay_within_nine_tenths_of_the_context(mode: CostMode, context: int, reply: int) -> None:
    found = bounds(mode, context, reply)
    assert found.prompt_tokens > 0
    assert found.prompt_tokens + found.reply_tokens <= 0.9 * context
    assert found.compact_to_tokens <= found.prompt_tokens
    assert found.head_tokens <= 0.3 * context


def test_the_tighter_bound_wins() -> None:
    wide = bounds(CostMode.FAST, 1_000_000)
    assert wide.fits(100_000, 400_000)
    assert not wide.fits(100_000, 500_001), "bytes bound what the context would hold"
    narrow = bounds(CostMode.FAST, 4096, 512)
    assert not narrow.fits(narrow.prompt_tokens + 1, 10), "the context bounds what the mode would allow"


def test_the_lite_parts_have_their_percentages() -> None:
    found = bounds(CostMode.SMART, 10_000)
    assert {part: found.lite_tokens(part) for part in LITE_SHARES} == {
        "bootstrap": 200,
        "memory": 100,
        "skills": 200,
        "profiles": 100,
    }


def test_a_context_that_holds_nothing_is_said() -> None:
    with pytest.raises(RoostError, match="holds no conversation"):
        bounds(CostMode.SMART, 1)
