"""What Roost adds on the way and how much it carries, beside the bare model server and the LiteLLM proxy, in one run.

Roost and LiteLLM have one core, the model server and the client the other ones: neither takes time from what is
measured. Keys, limits and accounts are on, the accounts on a disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from tests.support.gateway import API_KEY, Service, service
from tests.support.net import wait_until

from bench.environments import AGENT, environment
from bench.litellm_proxy import KEY, litellm_before
from bench.load import Streams, Target, saturate, stream_many
from bench.open_loop import open_loop
from bench.scripted import scripted_server
from roost.ops.api_keys import KeyDocument, Tier, TierLimits, digest_of, made_key

CONNECTIONS = 32
ROUNDS = 3
SATURATE_S = 4.0
OPEN_LOOP_S = 20.0
STREAMS, EVENTS, PER_S, WITHIN_S = 200, 100, 20, 5.0
FAST = TierLimits(requests=10**9, tokens=10**12, concurrent=1000, waiting=1000)
Found = TypeVar("Found")


def cores() -> tuple[frozenset[int], frozenset[int]]:
    """Return the core of what is measured, and those of the rest."""
    mine = sorted(os.sched_getaffinity(0))
    return frozenset(mine[:1]), frozenset(mine[1:] or mine)


@contextmanager
def pinned_roost(folder: Path, engine_port: int, where: frozenset[int]) -> Iterator[Service]:
    """Run the gateway alone on these cores, with a key that has limits, and accounts on the disk.

    It has the packages of its image: what developers have beside them takes memory.
    """
    keys, state = folder / "keys.json", folder / "state"
    state.mkdir()
    keys.write_text(KeyDocument(keys=(made_key({"name": "bench", "sha256": digest_of(API_KEY)}),)).text())
    variables = {
        "ROOST_KEYS_FILE": str(keys), "ROOST_STATE_DIR": str(state),
        "ROOST_TIERS": json.dumps({tier: FAST.model_dump() for tier in Tier}),
        "ROOST_STATIC_ENDPOINTS": f"http://127.0.0.1:{engine_port}",
    }  # fmt: skip
    with service(folder, variables, "gateway", python=environment(AGENT) / "bin/python") as running:
        for task in Path(f"/proc/{running.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), where)
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
        yield running


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all are at most."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def added(bare: Sequence[float], through: Sequence[float]) -> tuple[float, float]:
    """Return median and 99th percentile of what was added, in ms, by pairs sent one after the other."""
    later = [ours - theirs for theirs, ours in zip(bare, through, strict=True)]
    return round(statistics.median(later), 3), round(percentile(later, 0.99), 3)


def measure(folder: Path) -> dict[str, Any]:
    """Measure all of it; returns the figures."""
    ours, rest = cores()
    found: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 2)}
    with scripted_server(rest) as port, pinned_roost(folder, port, ours) as roost:
        os.sched_setaffinity(0, rest)
        try:
            bare, through = Target(port), Target(roost.port, API_KEY)
            with litellm_before(folder, port, ours) as other:
                found |= _saturation(through, Target(other.port, KEY))
                found["litellm_rss_mb"] = tree_rss_mb(other.process.pid)
            found |= _latency(bare, through, found["roost_per_s"] / 2)
            found |= _streams(bare, through)
            found["gateway_rss_mb"] = tree_rss_mb(roost.process.pid)
        finally:
            os.sched_setaffinity(0, ours | rest)
    found["load_after"] = round(os.getloadavg()[0], 2)
    return found


def _saturation(roost: Target, litellm: Target) -> dict[str, Any]:
    _run(saturate(roost, CONNECTIONS, 1.0))
    _run(saturate(litellm, CONNECTIONS, 1.0))
    pairs = [
        (_run(saturate(roost, CONNECTIONS, SATURATE_S)), _run(saturate(litellm, CONNECTIONS, SATURATE_S)))
        for _ in range(ROUNDS)
    ]
    return {
        "roost_per_s": round(statistics.median(ours for ours, _ in pairs)),
        "litellm_per_s": round(statistics.median(theirs for _, theirs in pairs), 1),
        "times_litellm": round(statistics.median(ours / theirs for ours, theirs in pairs), 1),
    }


def _latency(bare: Target, roost: Target, per_s: float) -> dict[str, Any]:
    found = open_loop([bare, roost], per_s, OPEN_LOOP_S, seed=1)
    late = found.answered
    median, high = added(*late)
    return {
        "open_loop_per_s": round(per_s), "bare_median_ms": round(statistics.median(late[0]), 3),
        "bare_p99_ms": round(percentile(late[0], 0.99), 3), "roost_median_ms": round(statistics.median(late[1]), 3),
        "roost_p99_ms": round(percentile(late[1], 0.99), 3), "added_median_ms": median, "added_p99_ms": high,
        "client_late_p99_ms": round(percentile(found.sent, 0.99), 3),
    }  # fmt: skip


def _streams(bare: Target, roost: Target) -> dict[str, Any]:
    rounds: list[tuple[Streams, Streams]] = [
        (
            _run(stream_many(bare, STREAMS, EVENTS, PER_S, WITHIN_S, seed)),
            _run(stream_many(roost, STREAMS, EVENTS, PER_S, WITHIN_S, seed)),
        )
        for seed in range(ROUNDS)
    ]
    theirs, ours = ([value for pair in rounds for value in pair[at].first] for at in (0, 1))
    gap = [percentile(pair[1].gaps, 0.99) - percentile(pair[0].gaps, 0.99) for pair in rounds]
    way = [percentile(pair[1].way, 0.99) - percentile(pair[0].way, 0.99) for pair in rounds]
    return {
        "streams": STREAMS, "stream_events_per_s": PER_S,
        "stream_first_byte_later_ms": round(statistics.median(ours) - statistics.median(theirs), 3),
        "stream_gap_added_p99_ms": round(statistics.median(gap), 3),
        "stream_way_added_p99_ms": round(statistics.median(way), 3),
    }  # fmt: skip


def _run(work: Coroutine[None, None, Found]) -> Found:
    async def timed() -> Found:
        async with asyncio.timeout(600):
            return await work

    return uvloop.run(timed())


def tree_rss_mb(pid: int) -> float:
    """Return the resident memory of a process and those below it in MB (10^6 bytes)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    wanted, total = [pid], 0
    while wanted:
        one = wanted.pop()
        wanted.extend(parents.get(one, []))
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return round(total / 1e6, 1)
