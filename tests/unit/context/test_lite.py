"""The head of a prompt: percentages of the real context, thirty together at most, nothing shortened in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.context.blobs import MemoryBlobs
from roost.context.budget import LITE_SHARES, CostMode, bounds
from roost.context.gate import Gate
from roost.context.lite import TITLES, lite_head
from roost.context.tokens import Estimate
from roost.ops.errors import RoostError

PARTS = st.dictionaries(st.sampled_from(sorted(LITE_SHARES)), st.integers(0, 4000)).map(
    lambda counts: {name: f"{name} " * count for name, count in counts.items()}
)


def gate() -> Gate:
    """Return a gate in memory."""
    return Gate(MemoryBlobs(), "me", Estimate())


@given(PARTS, st.sampled_from([1024, 4096, 32_768]))
async def test_each_part_has_its_share_and_what_is_cut_is_said(parts: dict[str, str], context: int) -> None:
    limits = bounds(CostMode.SMART, context)
    head, events = await lite_head("You are Main.", parts, (), limits, gate())
    assert Estimate().of(head.system) <= 0.3 * context
    for section in head.system.split("## ")[1:]:
        name = next(name for name, title in TITLES.items() if section.startswith(title))
        assert Estimate().of(f"## {section.rstrip()}") <= limits.lite_tokens(name) + 2
    told = {str(event.detail["part"]) for event in events}
    assert told == {name for name, text in parts.items() if text.strip() and text.strip() not in head.system}


async def test_the_same_parts_make_the_same_head() -> None:
    limits = bounds(CostMode.SMART, 8192)
    parts = {"skills": "s" * 2000, "memory": "m" * 2000}
    first, _ = await lite_head("You are Main.", parts, (), limits, gate())
    again, _ = await lite_head("You are Main.", dict(reversed(parts.items())), (), limits, gate())
    assert first == again


async def test_a_head_that_takes_the_context_is_refused() -> None:
    limits = bounds(CostMode.SMART, 2048)
    with pytest.raises(RoostError, match="tool schemas take"):
        await lite_head("Act.", {}, [{"type": "function", "description": "x" * 8000}], limits, gate())
    with pytest.raises(RoostError, match="no part 'manners'"):
        await lite_head("Act.", {"manners": "x"}, (), limits, gate())
