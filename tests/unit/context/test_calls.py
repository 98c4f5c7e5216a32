"""The short form of `bench/run context`: random conversations, none cut in silence, none over its bound."""

from __future__ import annotations

import pytest
from bench.context import calls

from roost.context import gate


async def test_no_prompt_is_cut_in_silence_or_goes_over_its_bound() -> None:
    found = await calls(150, seed=1)
    assert found["calls_shortened"] > 20
    assert (found["calls_silent"], found["calls_over"]) == (0, 0)


async def test_a_silent_cut_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "marker", lambda *_: "")
    assert (await calls(60, seed=1))["calls_silent"] > 0
