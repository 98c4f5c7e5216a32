"""Which model servers to stop and which to start, now: a pure decision over plain data.

A pool is memory that models share: a graphics card's or a machine's, named by the plan. A server that was told to stop
holds its memory until it is gone, so a start that needs room comes in two steps: stop, and start once the room is
there. Asked again after every change, the decision is the same until something changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

IDLE = "nobody used it for {:.0f} s"
ROOM = "{} needs its memory"
STAYS = "another model became warm a moment ago, and stays for a while"
NEVER = float("-inf")

Bytes = Mapping[str, int]


@dataclass(frozen=True)
class ModelUse:
    """One model server's job. Times in seconds of one clock; `memory` in bytes by pool.

    `holds` says that it occupies its memory, from its start until its last process is gone. `wanted_since` is when the
    oldest request that waits for it came. Before `not_before` it is not started: it failed a moment ago. `warm_since`
    is when it was last started, and then when that was done; `NEVER` for one that was there before anybody looked.
    """

    job: str
    memory: Bytes = field(default_factory=dict)
    holds: bool = False
    stopping: bool = False
    wanted_since: float | None = None
    last_used: float = 0.0
    busy: bool = False
    keep_warm: bool = False
    not_before: float = 0.0
    warm_since: float = NEVER

    def may_stop(self) -> bool:
        """Say whether nobody would miss it at this moment."""
        return self.holds and not (self.stopping or self.busy or self.keep_warm or self.wanted_since is not None)


@dataclass(frozen=True)
class Decision:
    """What to do at once: `stop` and `waiting` by job with the reason in words, `start` in the order of requests."""

    stop: Mapping[str, str] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)


def decide(
    models: Collection[ModelUse], pools: Bytes, *, now: float, idle_stop_s: float, min_stay_s: float = 0.0
) -> Decision:
    """Decide. A pool that `pools` does not name has no limit; `idle_stop_s` 0 stops nothing for being idle.

    Whoever waits longest is served first, and room that is being made for one is not given to another. What is stopped
    for room was used least recently among what uses the pools that are short. Nothing is stopped in vain, and
    nothing for room before it was warm for `min_stay_s`: else two clients that take turns swap models at each request.
    """
    stop = {
        model.job: IDLE.format(idle_stop_s)
        for model in models
        if idle_stop_s > 0 and model.may_stop() and now - model.last_used >= idle_stop_s
    }
    held = _sum(model.memory for model in models if model.holds)
    leaving = _sum(model.memory for model in models if model.holds and (model.stopping or model.job in stop))
    start: list[str] = []
    waiting: dict[str, str] = {}
    for wanted in sorted(models, key=lambda model: (model.wanted_since or 0.0, model.job)):
        if wanted.wanted_since is None or wanted.holds:
            continue
        if wanted.not_before > now:
            waiting[wanted.job] = f"it failed to start, next try in {wanted.not_before - now:.0f} s"
            continue
        if never := [pool for pool, need in sorted(wanted.memory.items()) if need > pools.get(pool, need)]:
            waiting[wanted.job] = f"it needs more memory than {never[0]} has"
            continue
        if not _short(held, wanted.memory, pools):
            start.append(wanted.job)
            held += Counter(wanted.memory)
            continue
        short = _short(held - leaving, wanted.memory, pools)
        victims = _victims([model for model in models if now - model.warm_since >= min_stay_s], stop, short)
        if victims is None:
            only_fresh = _victims(models, stop, short) is not None
            waiting[wanted.job] = STAYS if only_fresh else "its memory is in use by other models"
            continue
        waiting[wanted.job] = "memory for it is being freed"
        for victim in victims:
            stop[victim.job] = ROOM.format(wanted.job)
            leaving += Counter(victim.memory)
        held += Counter(wanted.memory)  # reserved: a later one must not take what is being freed for this one
    return Decision(stop, tuple(start), waiting)


def _sum(parts: Iterable[Bytes]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def _short(held: Bytes, need: Bytes, pools: Bytes) -> dict[str, int]:
    """Return by pool how many bytes are missing for `need` beside what is held."""
    missing = {p: held.get(p, 0) + n - pools[p] for p, n in need.items() if p in pools and n > 0}
    return {pool: count for pool, count in missing.items() if count > 0}


def _victims(models: Collection[ModelUse], stop: Collection[str], short: Bytes) -> list[ModelUse] | None:
    """Return the fewest servers, least recently used first, that free what is short; None if that cannot be freed."""
    left = Counter(dict(short))
    chosen: list[ModelUse] = []
    for model in sorted(models, key=lambda model: (model.last_used, model.job)):
        if not +left:
            break
        if model.job not in stop and model.may_stop() and any(model.memory.get(pool, 0) for pool in +left):
            chosen.append(model)
            left.subtract({pool: model.memory.get(pool, 0) for pool in short})
    if +left:
        return None
    for model in list(reversed(chosen)):  # an earlier small one may not be needed once a later big one goes
        if all(count + model.memory.get(pool, 0) <= 0 for pool, count in left.items()):
            chosen.remove(model)
            left.update({pool: model.memory.get(pool, 0) for pool in short})
    return chosen
