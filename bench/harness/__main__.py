"""`bench/run harness`: finished scenarios, with Roost's harness and with a plain tool loop, on the same models."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections import Counter
from typing import Any

import structlog

from bench.harness.loops import Ended, harnessed, plain
from bench.harness.scenarios import Scenario, scenarios
from bench.harness.simulated import CONTEXT, Faults, SimulatedModels, evenly
from bench.results import save

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
WAYS = {"roost": harnessed, "plain": plain}


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


async def measure(seeds: int, only: str = "", *, verbose: bool = False) -> dict[str, Any]:
    """Take all scenarios on all simulated models."""
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
    figures["largest_request_percent_of_context"] = round(100 * largest / CONTEXT, 1)
    return figures


def missed(figures: dict[str, Any]) -> list[str]:
    """Return what was promised and did not hold, of Roost's way."""
    found = []
    for name, counts in figures["bad"].items():
        if name.endswith("_roost"):
            found += [f"{name}: {counts[k]} {k}" for k in ("false_success", "endless", "overflow") if counts.get(k)]
    if figures["largest_request_percent_of_context"] > 90:
        found.append("a request was above 0.9 of the context")
    return found


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(prog="bench/run harness", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how often each scenario is taken on each model")
    parser.add_argument("--only", default="", help="one simulated model")
    parser.add_argument("--simulated", dest="real", action="store_false", help="leave the real model out")
    parser.add_argument("--no-save", action="store_true", help="print, and keep no result")
    parser.add_argument("--verbose", action="store_true", help="print what did not finish")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.monotonic()
    figures = asyncio.run(measure(asked.seeds, asked.only, verbose=asked.verbose))
    if asked.real:
        from bench.harness.real import measure_real  # needs the engine, which others do not

        figures |= asyncio.run(measure_real(outcome))
    figures["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps({k: v for k, v in figures.items() if k != "bad"}, indent=1))
    if not asked.no_save:
        save("harness", figures)
    for line in (faults := missed(figures)):
        print(f"missed: {line}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
