"""Downloads that are killed 500 times in a row: what is visible afterwards, and what was sent twice."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.killed import Kills, kill_downloads

from bench.results import save
from roost.ops.fetch import BLOCK_BYTES

KILLS = 500
KIB = 1024


def figures(found: Kills, seconds: float) -> dict[str, int | float | bool]:
    """What is kept of a run."""
    return {
        "kills": found.kills,
        "corrupt_files_seen": found.corrupt,
        "whole_at_the_end": found.whole,
        "lives_that_received": len(found.twice),
        "sent_twice_most_kib": round(max(found.twice) / KIB, 1),
        "sent_twice_average_kib": round(sum(found.twice) / len(found.twice) / KIB, 1),
        "sent_twice_limit_kib": BLOCK_BYTES // KIB,
        "seconds": round(seconds),
    }


def missed(found: Kills) -> list[str]:
    """The promises that did not hold."""
    return [
        text
        for text, bad in (
            (f"{found.corrupt} corrupt files were visible", found.corrupt > 0),
            ("the last download is not whole", not found.whole),
            (f"{max(found.twice)} bytes were sent twice in one life", max(found.twice) > BLOCK_BYTES),
        )
        if bad
    ]


def main() -> int:
    """Measure, keep the result; 1 when a promise did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_downloads(given.kills, Path(folder))
    measured = figures(found, time.monotonic() - began)
    for name, value in measured.items():
        print(f"{name:24} {value}")
    if given.kills == KILLS:
        print(save("downloads", measured))
    for text in missed(found):
        print(f"MISSED: {text}", file=sys.stderr)
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
