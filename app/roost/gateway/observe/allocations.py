"""What Nomad measures of the processes of model servers and workers, by node: asked through the Task API.

A worker of llama.cpp (`ggml-rpc-server`) serves one connection at a time and has no metrics of its own, so Nomad's are
the only ones there are: https://developer.hashicorp.com/nomad/api-docs/allocations and, for what they use,
https://developer.hashicorp.com/nomad/api-docs/client (Read Allocation Statistics).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import structlog
from pydantic import BaseModel, Field, TypeAdapter

from roost.gateway.task_api import TaskApi

log = structlog.get_logger(__name__)

RUNNING, RUN = "running", "run"
AT_ONCE = 8  # questions to Nomad


class _Task(BaseModel):
    restarts: int = Field(default=0, validation_alias="Restarts")


class _Stub(BaseModel):
    id: str = Field(validation_alias="ID")
    job: str = Field(validation_alias="JobID")
    node: str = Field(default="", validation_alias="NodeName")
    status: str = Field(validation_alias="ClientStatus")
    desired: str = Field(default=RUN, validation_alias="DesiredStatus")
    following: str = Field(default="", validation_alias="NextAllocation")
    tasks: dict[str, _Task] | None = Field(default=None, validation_alias="TaskStates")


class _Job(BaseModel):
    id: str = Field(validation_alias="ID")
    stopped: bool = Field(default=False, validation_alias="Stop")


class _Memory(BaseModel):
    rss: int = Field(default=0, validation_alias="RSS")
    usage: int = Field(default=0, validation_alias="Usage")


class _Cpu(BaseModel):
    percent: float = Field(default=0.0, validation_alias="Percent")


class _Usage(BaseModel):
    memory: _Memory | None = Field(default=None, validation_alias="MemoryStats")
    cpu: _Cpu | None = Field(default=None, validation_alias="CpuStats")


class _Resources(BaseModel):
    usage: _Usage = Field(default_factory=_Usage, validation_alias="ResourceUsage")


class _Stats(BaseModel):
    tasks: dict[str, _Resources] = Field(default_factory=dict, validation_alias="Tasks")


STUBS = TypeAdapter(list[_Stub])
JOBS = TypeAdapter(list[_Job])
STATS = TypeAdapter(_Stats)


@dataclass(frozen=True)
class Allocated:
    """One task of an allocation: memory in bytes and processors kept busy, None where Nomad could not say.

    A worker's job that has no allocation has an empty `node`.
    """

    job: str
    task: str
    node: str
    allocation: str
    up: bool
    restarts: int = 0
    memory: int | None = None
    cores: float | None = None


async def allocated(api: TaskApi, model_prefix: str, worker_prefix: str) -> list[Allocated]:
    """Return the allocations that shall run of jobs whose names begin so; nothing where Nomad does not answer."""
    try:
        async with api.session() as session:
            stubs = await api.ask(session, "/v1/allocations", STUBS)
            workers = await api.ask(session, "/v1/jobs", JOBS, {"prefix": worker_prefix})
            wanted = [
                stub
                for stub in stubs
                if stub.job.startswith((model_prefix, worker_prefix)) and stub.desired == RUN and not stub.following
            ]
            stats = await _statistics(api, session, [stub.id for stub in wanted if stub.status == RUNNING])
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        log.warning("nomad_unreachable", path="/v1/allocations", error=type(error).__name__)
        return []
    found = [task for stub in wanted for task in _tasks(stub, stats.get(stub.id))]
    there = {stub.job for stub in wanted}
    lost = sorted(job.id for job in workers if not job.stopped and job.id not in there)
    return found + [Allocated(job, "", "", "", up=False) for job in lost]


async def _statistics(api: TaskApi, session: aiohttp.ClientSession, ids: Sequence[str]) -> dict[str, _Stats]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(allocation: str) -> _Stats | None:
        async with turn:
            try:
                return await api.ask(session, f"/v1/client/allocation/{quote(allocation, safe='')}/stats", STATS)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):  # its node is away, or it has just ended
                return None

    answers = await asyncio.gather(*(one(allocation) for allocation in ids))
    return {allocation: answer for allocation, answer in zip(ids, answers, strict=True) if answer}


def _tasks(stub: _Stub, stats: _Stats | None) -> list[Allocated]:
    tasks: Mapping[str, _Task] = stub.tasks or {}
    found = []
    for name, task in sorted(tasks.items()):
        usage = stats.tasks[name].usage if stats and name in stats.tasks else _Usage()
        memory = (usage.memory.rss or usage.memory.usage) if usage.memory else None  # cgroups v2 fill only the second
        cores = usage.cpu.percent / 100 if usage.cpu else None
        found.append(
            Allocated(stub.job, name, stub.node, stub.id, stub.status == RUNNING, task.restarts, memory, cores)
        )
    return found or [Allocated(stub.job, "", stub.node, stub.id, up=False)]
