"""`bench/run harness`: finished scenarios, with Roost's harness and with a plain tool loop, on the same models."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from bench.harness.loops import Ended, harnessed, plain
from bench.harness.scenarios import Scenario, scenarios
from bench.harness.simulated import CONTEXT, Faults, SimulatedModels, evenly
from bench.harness.world import World
from bench.results import save
from bench.transfer import Notes, add_transfer, taken
from roost.agent.models import Models

SEEDS = 5
MODELS: dict[str, Faults] = {
    "no_faults": Faults(),
    "good_05": evenly(0.05),
    "middling_20": evenly(0.20),
    "bad_40": evenly(0.40),
    "bad_40_no_grammar": evenly(0.40, grammar=False),
    "malformed_50": Faults(malformed_arguments=0.5),
    "wrong_tool_50": Faults(wrong_tool=0.5),
    "as_text_50": Faults(call_as_text=0.5),
    "in_thinking_50": Faults(call_in_thinking=0.5),
    "repetition_50": Faults(repetition=0.5),
    "false_done_50": Faults(false_done=0.5),
    "lost_format_50": Faults(lost_format=0.5, grammar=False),
    "babble_50": Faults(babble=0.5, grammar=False),
    "always_repeats": Faults(repetition=1.0),
    "always_done": Faults(false_done=1.0),
}
WAYS: dict[str, Callable[[Models, Scenario, World], Awaitable[Ended]]] = {"roost": harnessed, "plain": plain}


def outcome(scenario: Scenario, ended: Ended, done: bool) -> str:
    """Return `finished`, `false_success`, `endless`, `overflow`, or `honest` for a failure that says so."""
    good = done if scenario.possible else not ended.claims
    if ended.fault in {"endless", "overflow"}:
        return ended.fault
    if good and (ended.claims or not scenario.possible):
        return "finished"
    return "false_success" if ended.claims else "honest"


async def one(way: str, scenario: Scenario, faults: Faults, seed: int) -> tuple[str, SimulatedModels, Ended]:
    """Take one scenario."""
    models, world = SimulatedModels(scenario, faults, seed), scenario.world()
    ended = await WAYS[way](models, scenario, world)
    return outcome(scenario, ended, scenario.done(world, ended.answer)), models, ended


async def measure(
    seeds: int, only: str = "", *, verbose: bool = False, keep: Callable[[dict[str, Any]], None] = lambda _figures: None
) -> dict[str, Any]:
    """Take all scenarios on all simulated models; `keep` is given the figures so far after each of them."""
    all_of = scenarios()
    figures: dict[str, Any] = {"scenarios": len(all_of), "seeds": seeds, "context_tokens": CONTEXT}
    largest = 0
    for name, faults in MODELS.items():
        if only and only != name:
            continue
        for way in WAYS:
            counts: Counter[str] = Counter()
            tokens = 0
            for scenario in all_of:
                for seed in range(seeds):
                    found, models, ended = await one(way, scenario, faults, seed)
                    counts[found] += 1
                    tokens += models.tokens
                    if way == "roost":
                        largest = max(largest, models.largest)
                        if verbose and found != "finished":
                            print(name, scenario.name, seed, found, models.drawn, ended, file=sys.stderr)
            total = len(all_of) * seeds
            figures[f"{name}_{way}"] = (
                f"{100 * counts['finished'] / total:.1f} % finished; false {counts['false_success']}, endless "
                f"{counts['endless']}, overflow {counts['overflow']}, said so {counts['honest']} of {total}; "
                f"{tokens // total} tokens each"
            )
            figures.setdefault("bad", {})[f"{name}_{way}"] = dict(counts)
            keep(figures)
    figures["largest_request_percent_of_context"] = round(100 * largest / CONTEXT, 1)
    return figures


def missed(figures: dict[str, Any]) -> list[str]:
    """Return what was promised and did not hold, of Roost's way."""
    found = []
    for name, counts in figures.get("bad", {}).items():
        if name.endswith("_roost"):
            found += [f"{name}: {counts[k]} {k}" for k in ("false_success", "endless", "overflow") if counts.get(k)]
    real = figures.get("real", {}).get("roost", {})
    found += [f"the real model: {real[k]} {k}" for k in ("false_success", "endless", "overflow") if real.get(k)]
    largest = [figures.get(f"{kind}_percent_of_context", 0) for kind in ("largest_request", "real_largest")]
    if max(largest) > 90:
        found.append("a request was above 0.9 of the context")
    return found


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="bench/run harness", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how often each scenario is taken on each model")
    parser.add_argument("--only", default="", help="one simulated model")
    parser.add_argument("--real", action="store_true", help="the real model only")
    parser.add_argument("--simulated", action="store_true", help="the simulated models only")
    parser.add_argument("--scenario", action="append", default=[], help="one scenario for the real model; repeatable")
    parser.add_argument("--parallel", type=int, default=1, help="scenarios of the real model at a time, a slot each")
    parser.add_argument("--late", type=float, default=60.0, help="seconds that a scenario of the real model may take")
    parser.add_argument("--trace", type=Path, help="all that the real model was asked and answered, a line for each")
    parser.add_argument("--no-save", action="store_true", help="print, and keep no result")
    parser.add_argument("--verbose", action="store_true", help="print what did not finish")
    add_transfer(parser)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.monotonic()
    notes = Notes(asked.output)
    figures: dict[str, Any] = {}
    if asked.take:
        figures = taken(asked.take, notes)
    if not asked.take and not asked.real:
        figures = asyncio.run(measure(asked.seeds, asked.only, verbose=asked.verbose, keep=notes.keep))
    if not asked.take and not asked.simulated:
        from bench.harness.real import measure_real  # needs the engine, which others do not

        real = measure_real(
            outcome, only=asked.scenario, parallel=asked.parallel, trace=asked.trace, late_s=asked.late,
            keep=lambda more: notes.keep(figures | more),
        )  # fmt: skip
        figures |= asyncio.run(real)
    figures.setdefault("seconds", round(time.monotonic() - began, 1))
    notes.keep(figures)
    print(json.dumps({k: v for k, v in figures.items() if k not in {"bad", "real_outcomes"}}, indent=1))
    if not asked.no_save and not asked.output:
        save("harness", figures, on=notes.machine)
    for line in (faults := missed(figures)):
        print(f"missed: {line}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
