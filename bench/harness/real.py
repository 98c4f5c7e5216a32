"""The smallest real model in the same scenarios, through a gateway: with the harness and with a plain tool loop."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from tests.support.engine import MODEL, llama_server
from tests.support.gateway import API_KEY, service, write_keys
from tests.support.net import wait_until

from bench.harness.loops import Ended, harnessed, plain
from bench.harness.scenarios import Scenario, scenarios
from bench.harness.simulated import CONTEXT
from roost.agent.delegation import Candidate
from roost.agent.models import ApiModels, Ask, Hear, Models, Reply
from roost.context.tokens import ApiCounter
from roost.ops.errors import RoostError

LIMIT_S = 60.0
ASKS = 80
"""More requests than that in one scenario: it does not end. As with the simulated models."""
WAYS = ("roost", "plain")
Judge = Callable[[Scenario, Ended, bool], str]
Keep = Callable[[dict[str, Any]], None]


class EndlessError(Exception):
    """A scenario asked too often."""


@dataclass
class Watched:
    """Models that count what is asked of them; `told` gets each question and answer."""

    models: Models
    told: list[dict[str, Any]] = field(default_factory=list)
    asks: int = 0
    tokens: int = 0
    largest: int = 0

    async def candidates(self) -> list[Candidate]:
        """Return the models there are."""
        return await self.models.candidates()

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        """Return the answer."""
        self.asks += 1
        if self.asks > ASKS:
            raise EndlessError
        entry: dict[str, Any] = {"asked": [f"{one.role}: {one.text}" for one in ask.messages]}
        self.told.append(entry)
        try:
            reply = await self.models.ask(ask, hear)
        except RoostError as error:
            entry["error"] = error.message
            raise
        entry |= {"answer": reply.text, "calls": [[call.name, call.arguments] for call in reply.calls],
                  "finish": reply.finish, "prompt": reply.usage.prompt}  # fmt: skip
        self.tokens += reply.usage.prompt + reply.usage.completion
        self.largest = max(self.largest, reply.usage.prompt)
        return reply


@dataclass
class Found:
    """What came of the scenarios of one way."""

    counts: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    asks: int = 0
    largest: int = 0

    def figures(self, way: str) -> dict[str, Any]:
        """Return the row of the table, and what it is made of."""
        total = self.counts.total()
        if not total:
            return {}
        text = (
            f"{self.counts['finished']} of {total} finished; false {self.counts['false_success']}, endless "
            f"{self.counts['endless']}, overflow {self.counts['overflow']}, late {self.counts['late']}, said so "
            f"{self.counts['honest']}; {self.asks / total:.1f} requests and {self.tokens // total} tokens each, the "
            f"largest {100 * self.largest / CONTEXT:.1f} % of the context"
        )
        return {f"real_smollm2_135m_{way}": text}


def figures_of(found: dict[str, Found]) -> dict[str, Any]:
    """Return all figures of the real model."""
    figures: dict[str, Any] = {}
    for way, one in found.items():
        figures |= one.figures(way)
    figures["real"] = {way: dict(one.counts) for way, one in found.items()}
    figures["real_outcomes"] = {way: one.outcomes for way, one in found.items()}
    figures["real_largest_percent_of_context"] = round(100 * found["roost"].largest / CONTEXT, 1)
    return figures


async def measure_real(
    judge: Judge,
    *,
    only: Sequence[str] = (),
    parallel: int = 1,
    keep: Keep | None = None,
    trace: Path | None = None,
    late_s: float = LIMIT_S,
) -> dict[str, Any]:
    """Take the scenarios, `parallel` at a time, those of `only` if there are any; return the figures.

    One that takes longer than `late_s` is counted as `late`. `keep` is given all figures so far after each; `trace`
    gets a line of JSON for each with all that was asked and answered.
    """
    chosen = [scenario for scenario in scenarios() if not only or scenario.name in only]
    found = {way: Found() for way in WAYS}
    left = [(way, scenario) for scenario in chosen for way in WAYS][::-1]
    slots = ("--ctx-size", str(CONTEXT * parallel), "--parallel", str(parallel))
    with tempfile.TemporaryDirectory() as place, llama_server(Path(place), slots) as engine:
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(Path(place))),
            "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
            "ROOST_STATIC_ENDPOINTS": engine.base_url,
        }
        with service(Path(place), environment) as roost:
            wait_until(lambda: '"state": "ready"' in roost.log.read_text(), 60, "the model to be routable")
            async with aiohttp.ClientSession() as session:
                counter = ApiCounter(roost.url, session, API_KEY, MODEL)

                async def work() -> None:
                    while left:
                        way, scenario = left.pop()
                        watched = Watched(ApiModels(session, roost.url, API_KEY))
                        began = time.monotonic()
                        outcome, ended = await _one(watched, counter, scenario, way, judge, late_s)
                        note = {
                            "way": way, "scenario": scenario.name, "outcome": outcome, "asks": watched.asks,
                            "largest": watched.largest, "seconds": round(time.monotonic() - began, 1),
                            "fault": ended.fault, "answer": ended.answer,
                        }  # fmt: skip
                        print(json.dumps({**note, "answer": ended.answer[:200]}), file=sys.stderr, flush=True)
                        if trace:
                            with trace.open("a") as file:
                                file.write(json.dumps({**note, "told": watched.told}) + "\n")
                        one = found[way]
                        one.counts[outcome] += 1
                        one.outcomes[scenario.name] = outcome
                        one.tokens += watched.tokens
                        one.asks += watched.asks
                        one.largest = max(one.largest, watched.largest)
                        if keep:
                            keep(figures_of(found))

                await asyncio.gather(*(work() for _ in range(parallel)))
    return figures_of(found)


async def _one(
    models: Models, counter: ApiCounter, scenario: Scenario, way: str, judge: Judge, late_s: float
) -> tuple[str, Ended]:
    world = scenario.world()
    loop: Awaitable[Ended] = (
        harnessed(models, scenario, world, counter) if way == "roost" else plain(models, scenario, world, MODEL)
    )
    try:
        async with asyncio.timeout(late_s):
            ended = await loop
    except TimeoutError:
        return "late", Ended("", claims=False)
    except EndlessError:
        return "endless", Ended("", claims=False)
    return judge(scenario, ended, scenario.done(world, ended.answer)), ended
