"""What keys, limits and accounting add to each request: the same calls as the gateway makes, with a spool on disk.

Nothing else is measured here: no HTTP, no model. The accountant runs beside it, so that its thread disturbs as it does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.results import ROOT, save
from roost.gateway.account.accounting import Tokens
from roost.gateway.account.meter import Meter, Outcome
from roost.gateway.auth import Keys
from roost.gateway.metrics import Metrics
from roost.gateway.settings import Settings
from roost.ops.api_keys import KeyDocument, Tier, TierLimits, digest_of, made_key

KEYS = 300  # as many as docs/operations.md promises
MAX_MEDIAN_MS = 0.2
MAX_GROWTH_MB = 5.0
BODY_BYTES = 400
PER_S = 500
OUTCOME = Outcome("tiny", 200, Tokens(100, 100, 50, 900.0), 100, 1000.0)
FAST = TierLimits(requests=10**9, tokens=10**12, concurrent=1000, waiting=1000)


def rss_mb() -> float:
    """Return the resident memory of this process in MB (10^6 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmRSS")


async def one(ring: Keys, meter: Meter, number: int) -> float:
    """Send one request through; returns the milliseconds that it took."""
    begun = time.perf_counter()
    key = ring.find(f"secret-{number % KEYS}")
    assert key
    async with (await meter.admit(key, BODY_BYTES)).place(30) as ticket:
        meter.settle(ticket, OUTCOME)
    return (time.perf_counter() - begun) * 1000


async def measure(folder: Path, requests: int, paced: int) -> dict[str, Any]:
    """Send `requests` through as fast as they go, for memory, and `paced` at `PER_S` a second, for time."""
    document = folder / "keys.json"
    keys = tuple(made_key({"name": f"key-{n}", "sha256": digest_of(f"secret-{n}")}) for n in range(KEYS))
    document.write_text(KeyDocument(keys=keys).text())
    state = folder / "state"
    state.mkdir()
    settings = Settings(keys_file=document, state_dir=state, tiers=dict.fromkeys(Tier, FAST))
    ring = Keys(None, document, settings.tiers)
    meter = Meter(settings, ring, Metrics(list))
    memory = 0.0
    async with meter.running(lambda _name: None):
        begun = time.perf_counter()
        for number in range(requests):
            await one(ring, meter, number)
            if number == requests // 2:
                memory = rss_mb()
            await asyncio.sleep(0)
        rate = requests / (time.perf_counter() - begun)
        grown = rss_mb() - memory
        took = []
        for number in range(paced):
            took.append(await one(ring, meter, number))
            await asyncio.sleep(1 / PER_S)
    took.sort()
    return {
        "keys": KEYS,
        "requests_per_s": round(rate),
        "added_median_ms": round(statistics.median(took), 4),
        "added_p99_ms": round(took[int(paced * 0.99)], 4),
        "memory_grown_mb": round(grown, 2),
    }


def main() -> None:
    """Measure, print, save; exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="bench.keys", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--paced", type=int, default=5_000)
    parser.add_argument("--dir", help="a folder on the disk that is meant, if temporary files lie in memory")
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.dir) as folder:
        found = asyncio.run(measure(Path(folder), chosen.requests, chosen.paced))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not chosen.no_save:
        sys.stdout.write(f"{save('keys', found).relative_to(ROOT)}\n")
    met = found["added_median_ms"] <= MAX_MEDIAN_MS and found["memory_grown_mb"] <= MAX_GROWTH_MB
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
