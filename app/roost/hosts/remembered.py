"""What the memory probe found, kept beside the state, so that it need not run each time. Standard library only, 3.9+.

What else runs can only make memory look slower: of two results for the same machine the faster one stays.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from roost.hosts.bandwidth import BUSY_NOTE, Bandwidth
from roost.hosts.facts import HostFacts
from roost.ops.files import write_atomic

MIB_PER_GIB = 1024


def machine_of(facts: HostFacts) -> str:
    """Return what a result is good for: another processor, share of it or size of memory is another machine."""
    cores, gib = facts.cpu_cores, round(facts.memory_total_mib / MIB_PER_GIB)
    return f"{facts.cpu_model}, {cores} cores, {gib} GiB"


def recall(path: Path, facts: HostFacts) -> Bandwidth | None:
    """Return what was kept for this machine; None if there is nothing, or it is of another one, or unreadable."""
    try:
        content = json.loads(path.read_text())
        found = Bandwidth(**content["bandwidth"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if content.get("machine") == machine_of(facts) and found.gbs > 0 else None


def faster(one: Bandwidth | None, other: Bandwidth | None) -> Bandwidth | None:
    """Return the faster of two results; where one of them was quiet, it was not far from the truth."""
    known = [found for found in (one, other) if found is not None]
    fastest = max(known, key=lambda found: found.gbs, default=None)
    if fastest is None or not fastest.busy or all(found.busy for found in known):
        return fastest
    return replace(fastest, busy=False, measured=fastest.measured.removesuffix(BUSY_NOTE))


def as_dict(facts: HostFacts, found: Bandwidth) -> dict[str, Any]:
    """Return what is kept, as plain data."""
    return {"machine": machine_of(facts), "bandwidth": asdict(found)}


def keep(path: Path, facts: HostFacts, found: Bandwidth) -> None:
    """Write what `recall` reads.

    Raises:
        OSError: it cannot be written.
    """
    write_atomic(path, json.dumps(as_dict(facts, found), indent=1) + "\n")
