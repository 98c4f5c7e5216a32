"""What runs where: the words that placement, the playbook and the command line share. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from roost.models.footprint import Estimate, LayerSplit, ServerSettings


@dataclass(frozen=True)
class GpuCapacity:
    """One graphics processor; `index` is its place among the facts' `gpus`, `free_bytes` may be planned with.

    `bandwidth_gbs` is what is reckoned with; where it is not exact, the truth lies between least and most.
    """

    index: int
    vendor: str
    name: str
    free_bytes: int
    bandwidth_gbs: float = 0.0
    integrated: bool = False  # its memory is the machine's
    alone: bool = False  # a slice of a divided card: no model is split over it and others
    wiring: str = ""  # how a job is given it: a job for it runs as it is only where this is the same
    bandwidth_least_gbs: float = 0.0  # 0: as `bandwidth_gbs`
    bandwidth_most_gbs: float = 0.0  # 0: as `bandwidth_gbs`


@dataclass(frozen=True)
class HostCapacity:
    """One machine as placement sees it; `free_bytes` of its own memory may be planned with.

    `bandwidth_gbs` is what is reckoned with; where it was measured while the machine was busy, or not at all, the truth
    lies between least and most.
    """

    name: str
    tier: str
    free_bytes: int
    cores: int
    bandwidth_gbs: float
    gpus: tuple[GpuCapacity, ...] = ()
    domain: str = ""  # failure domain: machines that fail together
    kind: str = ""  # machines of one kind run each other's jobs as they are
    bandwidth_least_gbs: float = 0.0  # 0: as `bandwidth_gbs`
    bandwidth_most_gbs: float = 0.0  # 0: as `bandwidth_gbs`


@dataclass(frozen=True)
class Placed:
    """One model server and its place. `spares` are hosts with room kept for it, best first.

    With `rpc`, layers lie on other hosts too: (host, layers there), and `host` runs the server; the estimate then names
    their devices `HOSTNAME/GPU0`. `copy` counts the servers of one slot that may run anywhere. `planned` are the
    figures that the server was placed and started with, where `estimate` knows better by now.
    """

    slot: str
    model: str
    quantisation: str
    host: str
    settings: ServerSettings
    split: LayerSplit
    estimate: Estimate
    reason: str
    spares: tuple[str, ...] = ()
    rpc: tuple[tuple[str, int], ...] = ()
    copy: int = 0
    slowed: bool = False  # meant for graphics processors, and not whole on them
    tokens_per_s: float = 0.0  # memory's speed / bytes that a token reads: the most that can be hoped for
    planned: Estimate | None = None


@dataclass(frozen=True)
class Refused:
    """What could not be placed, why, and what would have to change."""

    slot: str
    model: str
    reason: str
    remedy: str
    host: str = ""  # where it was asked for; empty: anywhere
    copy: int = 0


@dataclass(frozen=True)
class Plan:
    """The whole plan; `explanation` has a line a decision, in the order in which they were taken."""

    placed: tuple[Placed, ...]
    refused: tuple[Refused, ...] = ()
    explanation: tuple[str, ...] = field(default=())
