"""The smallest real model in the same scenarios: what it can do, with the harness and with a plain tool loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from tests.support.engine import ENGINE_KEY, MODEL, llama_server

from bench.harness.loops import Ended, harnessed, plain
from bench.harness.scenarios import Scenario, scenarios
from roost.agent.models import ApiModels

LIMIT_S = 60.0
TRIED = ("read notes.txt", "read config.yaml", "list src", "fetch one", "knowledge")
Judge = Callable[[Scenario, Ended, bool], str]


async def measure_real(judge: Judge) -> dict[str, Any]:
    """Take the simplest scenarios; one that takes longer than `LIMIT_S` is counted as `late`."""
    figures: dict[str, Any] = {}
    chosen = [scenario for scenario in scenarios() if scenario.name in TRIED]
    with tempfile.TemporaryDirectory() as folder, llama_server(Path(folder)) as engine:
        async with aiohttp.ClientSession() as session:
            models = ApiModels(session, engine.base_url, ENGINE_KEY)
            for way in ("roost", "plain"):
                counts: Counter[str] = Counter()
                for scenario in chosen:
                    counts[await _one(models, scenario, way, judge)] += 1
                figures[f"real_smollm2_135m_{way}"] = f"{counts['finished']} of {len(chosen)} finished; " + ", ".join(
                    f"{k} {v}" for k, v in counts.items()
                )
                figures.setdefault("real", {})[way] = dict(counts)
    return figures


async def _one(models: ApiModels, scenario: Scenario, way: str, judge: Judge) -> str:
    world = scenario.world()
    loop: Awaitable[Ended] = (
        harnessed(models, scenario, world) if way == "roost" else plain(models, scenario, world, MODEL)
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            ended = await loop
    except TimeoutError:
        return "late"
    return judge(scenario, ended, scenario.done(world, ended.answer))
