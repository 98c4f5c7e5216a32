"""How busy the hosts of the model servers are, as Nomad's clients measure it.

https://developer.hashicorp.com/nomad/api-docs/client#read-stats; graphics memory where a device plugin tells of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import structlog
from pydantic import BaseModel, Field, TypeAdapter

from roost.gateway.task_api import TaskApi

log = structlog.get_logger(__name__)

EVERY_S = 15.0
MIB = 1 << 20
UNITS = {"MiB": MIB, "B": 1, "KiB": 1 << 10, "GiB": 1 << 30}


@dataclass(frozen=True)
class HostUse:
    """One host: the share of its processors at work (0 to 1), memory and graphics memory in bytes, None if unknown."""

    name: str
    cpu: float | None = None
    ram_used: int | None = None
    ram_total: int | None = None
    vram_used: int | None = None
    vram_total: int | None = None

    def document(self) -> dict[str, object]:
        """Return it as a document."""
        cpu = None if self.cpu is None else round(self.cpu, 3)
        return {
            "name": self.name,
            "cpu": cpu,
            "ram_used": self.ram_used,
            "ram_total": self.ram_total,
            "vram_used": self.vram_used,
            "vram_total": self.vram_total,
        }


class _Cpu(BaseModel):
    total: float = Field(default=0.0, validation_alias="TotalPercent")
    busy: float | None = Field(default=None, validation_alias="Total")

    def share(self) -> float:
        """Return the share at work, 0 to 1: `Total` is in percent, newer clients call it `TotalPercent`."""
        return min(1.0, (self.busy if self.busy is not None else self.total) / 100.0)  # rounded above 100 at times


class _Memory(BaseModel):
    total: int = Field(validation_alias="Total")
    used: int = Field(validation_alias="Used")
    available: int | None = Field(default=None, validation_alias="Available")

    def taken(self) -> int:
        """Return what programs hold: what could be had at once is not taken."""
        return self.used if self.available is None else self.total - self.available


class _Value(BaseModel):
    unit: str = Field(default="", validation_alias="Unit")
    numerator: int | None = Field(default=None, validation_alias="IntNumeratorVal")
    denominator: int | None = Field(default=None, validation_alias="IntDenominatorVal")


class _Instance(BaseModel):
    summary: _Value | None = Field(default=None, validation_alias="Summary")


class _Device(BaseModel):
    type: str = Field(default="", validation_alias="Type")
    instances: dict[str, _Instance] | None = Field(default=None, validation_alias="InstanceStats")


class _Stats(BaseModel):
    cpu: list[_Cpu] | None = Field(default=None, validation_alias="CPU")
    memory: _Memory | None = Field(default=None, validation_alias="Memory")
    devices: list[_Device] | None = Field(default=None, validation_alias="DeviceStats")


class _Node(BaseModel):
    name: str = Field(validation_alias="Name")


STATS, NODE = TypeAdapter(_Stats), TypeAdapter(_Node)


def use_of(name: str, stats: _Stats) -> HostUse:
    """Return what a host's figures say; a card's summary is used and total memory."""
    cpus = [cpu.share() for cpu in stats.cpu or ()]
    cards = [
        instance.summary
        for device in stats.devices or ()
        if device.type == "gpu"
        for instance in (device.instances or {}).values()
        if instance.summary and instance.summary.unit in UNITS and instance.summary.denominator
    ]
    memory = stats.memory
    return HostUse(
        name,
        cpu=sum(cpus) / len(cpus) if cpus else None,
        ram_used=memory.taken() if memory else None,
        ram_total=memory.total if memory else None,
        vram_used=sum((card.numerator or 0) * UNITS[card.unit] for card in cards) if cards else None,
        vram_total=sum((card.denominator or 0) * UNITS[card.unit] for card in cards) if cards else None,
    )


class Nodes(Protocol):
    """Who knows which hosts have endpoints."""

    def nodes(self) -> Collection[str]:
        """Return the ids of the nodes."""
        ...


class HostUses:
    """Asks for the figures of each host with an endpoint, every now and then; without Nomad there are none."""

    def __init__(self, api: TaskApi | None, registry: Nodes) -> None:
        self._api = api
        self._registry = registry
        self._uses: dict[str, HostUse] = {}
        self._names: dict[str, str] = {}
        self._complained: set[str] = set()

    def by_node(self) -> dict[str, HostUse]:
        """Return what was found last, by node."""
        return self._uses

    async def run(self) -> None:
        """Ask until cancelled."""
        if self._api is None:
            return
        async with self._api.session() as session:
            while True:
                nodes = set(self._registry.nodes()) - {""}
                self._uses = {node: use for node in nodes if (use := await self._ask(self._api, session, node))}
                await asyncio.sleep(EVERY_S if nodes else 1.0)

    async def _ask(self, api: TaskApi, session: aiohttp.ClientSession, node: str) -> HostUse | None:
        try:
            if node not in self._names:
                self._names[node] = (await api.ask(session, f"/v1/node/{node}", NODE)).name
            stats = await api.ask(session, "/v1/client/stats", STATS, {"node_id": node})
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if node not in self._complained:  # said once: a policy of before may not allow it
                self._complained.add(node)
                log.warning("host_use_unknown", node=node, error=str(error) or type(error).__name__)
            return self._uses.get(node)
        self._complained.discard(node)
        return use_of(self._names[node], stats)
