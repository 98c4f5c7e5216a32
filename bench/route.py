"""What choosing for `auto` costs: time of the semantic router and of a decision, memory; and how good the router is."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.results import ROOT, save
from roost.gateway.choice.candidates import Candidate, sifted
from roost.gateway.choice.complexity import score
from roost.gateway.choice.decide import decide, seen
from roost.gateway.choice.features import read_request
from roost.gateway.choice.semantic import Accuracy, shipped
from roost.gateway.choice.training.examples import natural, shipped_examples
from roost.gateway.choice.training.fit import train
from roost.gateway.request.kinds import CHAT

MAX_MS, MAX_MB = 5.0, 100.0
SLOTS = ("main", "router", "specialist", "coding", "memory")
MEMORY = """
import resource
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
import roost.gateway.choice.chooser
before = rss()
from roost.gateway.choice.semantic import shipped
shipped().guess("Write a function that sorts a list")
print(rss() - before)
"""


def timed(name: str, call: Callable[[str], object], texts: Sequence[str], rounds: int) -> dict[str, float]:
    """Return the median and the 99th percentile of a call over texts, in milliseconds of the processor's time."""
    took = []
    for _ in range(rounds):
        for text in texts:
            begun = time.thread_time_ns()
            call(text)
            took.append((time.thread_time_ns() - begun) / 1e6)
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    return {f"{name}_median_ms": round(statistics.median(took), 3), f"{name}_p99_ms": round(p99, 3)}


def shares(name: str, measured: Accuracy | None) -> dict[str, object]:
    """Return how good a router is, as figures of their own."""
    if measured is None:
        return {}
    return {f"{name}_{field}": value for field, value in measured.model_dump().items()}


def measure(rounds: int, *, with_training: bool) -> dict[str, Any]:
    """Measure the shipped router; with the training of another one on the same examples."""
    router = shipped()
    texts = [example.text for example in natural()]
    chance = random.Random(0)  # noqa: S311
    examples = shipped_examples()
    longest = [" ".join(chance.choice(examples).text for _ in range(60)) for _ in range(20)]
    among = [Candidate(slot, slot, ready=True, strength=n + 1) for n, slot in enumerate(SLOTS)]

    def whole(text: str) -> object:
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()
        asked = read_request(CHAT, body)
        guess = seen(router.guess(asked.text), images=False)
        return decide(sifted(among, asked.features), score(asked.features), guess)

    memory = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    found: dict[str, Any] = {
        **timed("guess", router.guess, texts, rounds),
        **timed("guess_long", router.guess, longest, rounds),
        **timed("decision", whole, texts, rounds),
        "memory_mb": round(float(memory.stdout), 2),
        "file_bytes": len(router.file.text()),
        **shares("held_out", router.file.held_out),
        **shares("natural", router.file.natural),
    }
    if with_training:
        begun = time.perf_counter()
        train(examples, origin="bench")
        found["training_s"] = round(time.perf_counter() - begun, 1)
        found["training_examples"] = len(examples)
    return found


def main() -> None:
    """Measure, print, save; exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="bench.route", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--no-training", action="store_true", help="leave out the training")
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    found = measure(chosen.rounds, with_training=not chosen.no_training)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not chosen.no_save:
        sys.stdout.write(f"{save('route', found).relative_to(ROOT)}\n")
    met = found["guess_long_p99_ms"] <= MAX_MS and found["memory_mb"] <= MAX_MB
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
