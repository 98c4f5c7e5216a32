"""All that is known of this machine, in one report; also the program of the collector that is sent to nodes.

Standard library only, Python 3.9+: `collector_zip` packs this module and what it imports.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roost.hosts.bandwidth import Bandwidth, probe
from roost.hosts.collect import collect
from roost.hosts.facts import HostFacts
from roost.hosts.node_meta import node_meta
from roost.hosts.remembered import faster, recall
from roost.hosts.tiers import Tier, tier_of
from roost.ops.errors import RoostError

ROOT = "/"


@dataclass(frozen=True)
class Report:
    """One machine: what it has, which models that allows, how fast its memory is if that was measured."""

    facts: HostFacts
    tier: Tier
    bandwidth: Bandwidth | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "tier": asdict(self.tier),
            "bandwidth": asdict(self.bandwidth) if self.bandwidth else None,
            "node_meta": node_meta(self.facts, self.tier, self.bandwidth),
            "facts": self.facts.as_dict(),
        }


def look(
    paths: Sequence[str | Path] = (),
    *,
    manifest: Path | None = None,
    bandwidth_file: Path | None = None,
    measure: bool = False,
    measure_once: bool = False,
) -> Report:
    """Look at this machine; changes nothing and writes nothing. Its disk is that of `paths`, else of the root.

    The memory's bandwidth is what `bandwidth_file` remembers; with `measure` it is measured too and the better of
    both counts, with `measure_once` only where nothing is remembered.

    Raises:
        RoostError: it was to be measured and could not.
    """
    facts = collect(paths or [ROOT], manifest=manifest)
    known = recall(bandwidth_file, facts) if bandwidth_file else None
    if measure or (measure_once and known is None):
        known = faster(known, probe(facts.cpu_cores, facts.cpu.cache_mib, facts.memory_available_mib))
    return Report(facts, tier_of(facts, known.gbs if known else None), known)


def main(words: Sequence[str] | None = None) -> int:
    """Print the report as JSON; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="collect.pyz", description="Say what this machine has, as JSON. Changes nothing."
    )
    parser.add_argument("--path", action="append", default=[], help="a path whose disk matters; may be repeated")
    parser.add_argument("--manifest", type=Path, help="the ownership manifest")
    parser.add_argument("--bandwidth", type=Path, metavar="FILE", help="what the memory probe found before")
    parser.add_argument("--probe", action="store_true", help="measure memory bandwidth: less than a second")
    given = parser.parse_args(words)
    try:
        found = look(given.path, manifest=given.manifest, bandwidth_file=given.bandwidth, measure=given.probe)
    except RoostError as error:
        print(f"collect.pyz: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found.as_dict(), indent=1))
    return 0
