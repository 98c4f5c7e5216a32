"""How far the memory estimate is from the real engine: every published shape over a grid of settings.

Sparse files with true shapes, measured by the engine's server before it takes any memory. Writes the table of
docs/memory-estimate.md; ends with 1 where a limit is broken.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.engine_truth import CPU_ONLY, MIB, measuring_phase
from tests.support.gguf_files import write_sparse
from tests.support.model_shapes import PUBLISHED, Published

from bench.results import ROOT, save
from bench.table import replace
from roost.models.estimate.header import estimate_header
from roost.models.estimate.shape import header_of_shape
from roost.models.estimate.weights import tied_bytes
from roost.models.footprint import HOST, CacheType, ServerSettings
from roost.models.gguf_header import Header
from roost.models.gguf_read import header_of_file

PAGE = ROOT / "docs" / "memory-estimate.md"
CONTEXTS = (4096, 32768)
SLOTS = (1, 4)
UBATCHES = (512, 2048)
CACHES: tuple[CacheType, ...] = ("f16", "q8_0", "q4_0")
PART_LIMIT_PERCENT = 0.1
TOTAL_LIMIT_PERCENT, TOTAL_LIMIT_MIB, BELOW_LIMIT_PERCENT = 3.0, 64.0, 1.0


@dataclass(frozen=True)
class Errors:
    """How far the estimate is from the truth, in percent and MiB; below zero: too small."""

    settings: int
    kv_percent: float  # the largest either way
    total_low_percent: float
    total_high_percent: float
    compute_low_mib: float
    compute_high_mib: float
    broken: int


def grid() -> Iterator[ServerSettings]:
    """Yield the settings: contexts, slots, flash attention, batches, one cache or one a slot; then types of caches."""
    for context, slots, ubatch, flash, unified in itertools.product(
        CONTEXTS, SLOTS, UBATCHES, (True, False), (False, True)
    ):
        if not (unified and slots == 1):
            yield ServerSettings(context, slots, unified, flash_attention=flash, ubatch=ubatch)
    for kind, slots in itertools.product(CACHES[1:], SLOTS):
        yield ServerSettings(4096, slots, cache_type_k=kind, cache_type_v=kind)


def compare(header: Header, path: Path, settings: Sequence[ServerSettings]) -> Errors:
    """Measure one model over the grid."""
    kv: list[float] = [0.0]
    totals: list[float] = []
    computes: list[float] = []
    broken = 0
    for one in settings:
        true = measuring_phase(path, one)
        # counted twice while measuring, mapped once
        weights = true.weights - (tied_bytes(header) if header.architecture == "gemma3n" else 0)
        found = estimate_header(header, one, CPU_ONLY).on(HOST)
        if not -MIB < weights - found.weights <= 0.001 * found.weights:
            broken += 1
        total = found.weights + true.kv + true.compute + true.output  # weights were compared above, to the MiB
        off = found.total - found.other - total
        if true.kv:
            kv.append(100 * (found.kv - true.kv) / true.kv)
        totals.append(100 * off / total)
        computes.append((found.compute - true.compute) / MIB)
        high = max(TOTAL_LIMIT_PERCENT / 100 * total, TOTAL_LIMIT_MIB * MIB)
        if not -BELOW_LIMIT_PERCENT / 100 * total <= off <= high or abs(kv[-1]) > PART_LIMIT_PERCENT:
            broken += 1
    worst: float = max(kv, key=abs)
    return Errors(
        len(settings), round(worst, 3), round(min(totals), 2), round(max(totals), 2),
        round(min(computes), 1), round(max(computes), 1), broken,
    )  # fmt: skip


def measure(published: Published, folder: Path) -> Errors:
    """Measure one published shape."""
    path = folder / f"{published.name}.gguf"
    write_sparse(header_of_shape(published.architecture, published.shape, published.quantisation), path)
    return compare(header_of_file(path), path, list(grid()))


def table(found: dict[str, Errors]) -> str:
    """Return the table for the page."""
    by_name = {published.name: published for published in PUBLISHED}
    lines = [
        "| model | architecture | settings | cache, % | total, % (low … high) | compute, MiB (low … high) | broken |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {by_name[name].architecture} | {e.settings} | {e.kv_percent:+.3f} "
        f"| {e.total_low_percent:+.2f} … {e.total_high_percent:+.2f} "
        f"| {e.compute_low_mib:+.1f} … {e.compute_high_mib:+.1f} | {e.broken} |"
        for name, e in found.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, save; exit 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="published shapes; all if none")
    chosen = set(parser.parse_args().models)
    found: dict[str, Errors] = {}
    with tempfile.TemporaryDirectory() as folder:
        for published in PUBLISHED:
            if not chosen or published.name in chosen:
                found[published.name] = measure(published, Path(folder))
                print(f"{published.name}: {found[published.name]}", flush=True)
    broken = sum(errors.broken for errors in found.values())
    if not chosen:
        measured: dict[str, Any] = {
            "models": len(found), "settings_compared": sum(e.settings for e in found.values()), "limits_broken": broken,
            "total_lowest_percent": min(e.total_low_percent for e in found.values()),
            "total_highest_percent": max(e.total_high_percent for e in found.values()),
            "errors": {name: asdict(errors) for name, errors in found.items()},
        }  # fmt: skip
        save("estimate", measured)
        PAGE.write_text(replace(PAGE.read_text(), table(found)))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
