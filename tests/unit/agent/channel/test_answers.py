"""Results that a hub does not take."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import aiohttp

from roost.agent.channel.client import WorkerClient
from roost.agent.channel.worker import bounded
from roost.agent.tool import MOST_CHANGED, Outcome, ToolCall, ToolResult
from tests.support.agent_hub import Hands, announced, call, served
from tests.support.net import eventually


class Wordy(Hands):
    """Says more than a hub takes."""

    async def run(self, call: ToolCall) -> ToolResult:
        text = "x" * (8 << 20) if call.id == "large" else "a\udce9b"
        return ToolResult(id=call.id, outcome=Outcome.OK, text=text, changed=("f", "caf\udce9"))


async def test_a_result_that_is_too_large_keeps_its_outcome_and_loses_text(tmp_path: Path) -> None:
    async with served(tmp_path) as hub, aiohttp.ClientSession() as http:
        task = asyncio.create_task(WorkerClient(http, hub.url, "anna", Wordy(), announced).work())
        await eventually(lambda: bool(hub.desk.of("anna")), 10, "the worker")
        for number in ("large", "strange"):
            result = await asyncio.wait_for(hub.desk.runner("anna").run(call(number=number)), 10)
            assert result.outcome is Outcome.OK
            assert result.changed == ("f", "caf\\udce9")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_hub_keeps_a_bounded_number_of_names() -> None:
    many = ToolResult(id="c", outcome=Outcome.OK, text="done", changed=tuple(f"f{n}" for n in range(MOST_CHANGED + 3)))
    kept = bounded(many)
    assert len(kept.changed) == MOST_CHANGED
    assert "3 more" in kept.text
