"""What a model server's job says of itself in its service's tags, written by `nomad/model-server.nomad.hcl.j2`.

Tags and not `meta`: Nomad changes them without a restart, and they are in the registration as well as in the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Said:
    """The tags of one model server. `memory` is what the plan gives it, in bytes by pool.

    `tier` is that of the hosts its model is meant for. `tls`: it answers with a certificate of the fleet's authority.
    `moves`: another machine runs it when its own one is lost.
    """

    engine: str = ""
    models: tuple[str, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    tier: str = ""
    keep_warm: bool = False
    keeps_slots: bool = False
    slot: str = ""
    tls: bool = False
    moves: bool = False


def read_tags(tags: Iterable[str]) -> Said:
    """Read `NAME=VALUE`, and `memory=POOL:BYTES`; what is not understood is passed over."""
    pairs = [tag.partition("=")[::2] for tag in tags]
    memory: dict[str, int] = {}
    for name, value in pairs:
        pool, _, count = value.rpartition(":")
        if name == "memory" and pool and count.isdigit():
            memory[pool] = int(count)
    return Said(
        engine=next((value for name, value in pairs if name == "engine"), ""),
        models=tuple(value for name, value in pairs if name == "model"),
        memory=memory,
        adapters=tuple(value for name, value in pairs if name == "adapter"),
        tier=next((value for name, value in pairs if name == "tier"), ""),
        keep_warm=("keep_warm", "true") in pairs,
        keeps_slots=("keeps_slots", "true") in pairs,
        slot=next((value for name, value in pairs if name == "slot"), ""),
        tls=("tls", "true") in pairs,
        moves=("moves", "true") in pairs,
    )


def parse_pools(text: str) -> dict[str, int]:
    """Read `POOL=BYTES`, separated by commas.

    Raises:
        ValueError: a part is something else.
    """
    pools: dict[str, int] = {}
    for part in (word.strip() for word in text.split(",")):
        if part:
            name, _, count = part.rpartition("=")
            if not name or not count.isdigit():
                raise ValueError(f"{part!r} is not POOL=BYTES")
            pools[name] = int(count)
    return pools
