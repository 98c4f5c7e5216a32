"""The model servers that are planned, running or not: Nomad's jobs, followed like its services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
import structlog
from pydantic import BaseModel, Field, TypeAdapter

from roost.engines.base import State
from roost.gateway.routing import View
from roost.gateway.tags import Said, read_tags
from roost.gateway.task_api import BACKOFF_MOST_S, GROUP, TaskApi

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Planned:
    """One model server's job. `wanted` is how many servers it shall run, `running` how many are there or ending."""

    job: str
    slot: str
    said: Said = field(default_factory=Said)
    wanted: int = 1
    running: int = 0
    stopped: bool = False  # by an operator, as a job

    @property
    def moves(self) -> bool:
        """Say whether Nomad runs it on another machine when its own one is lost."""
        return self.said.moves and self.wanted > 0 and not self.stopped


STOPPED = "its job was stopped"
STARTING = "its job is starting"
ASLEEP = "it is stopped until somebody asks for it"


def view_of(planned: Planned, note: str = "") -> View:
    """Return what routing needs to know of a model server that is not there; `note` says why it does not start."""
    if planned.stopped:
        state, reason = State.DOWN, STOPPED
    elif planned.wanted:
        state, reason = State.LOADING, STARTING
    else:
        state, reason = State.COLD, note or ASLEEP
    memory = sum(planned.said.memory.values())
    return View(
        planned.job,
        planned.slot,
        state,
        planned.said.models,
        reason=reason,
        job=planned.job,
        memory=memory,
        adapters=planned.said.adapters,
        tier=planned.said.tier,
        source="nomad",
        moves=planned.moves,
    )


def by_job(jobs: Collection[Planned]) -> Mapping[str, Planned]:
    """Return the jobs by name."""
    return {planned.job: planned for planned in jobs}


class _Counts(BaseModel):
    running: int = Field(default=0, validation_alias="Running")
    starting: int = Field(default=0, validation_alias="Starting")
    unknown: int = Field(default=0, validation_alias="Unknown")


class _Summary(BaseModel):
    groups: dict[str, _Counts] = Field(default_factory=dict, validation_alias="Summary")


class _Stub(BaseModel):
    id: str = Field(validation_alias="ID")
    stop: bool = Field(default=False, validation_alias="Stop")
    version: int = Field(default=0, validation_alias="JobModifyIndex")
    summary: _Summary | None = Field(default=None, validation_alias="JobSummary")

    def running(self) -> int:
        """Return how many servers hold memory."""
        counts = self.summary.groups.get(GROUP) if self.summary else None
        return counts.running + counts.starting + counts.unknown if counts else 0


class _Service(BaseModel):
    tags: list[str] | None = Field(default=None, validation_alias="Tags")


class _Group(BaseModel):
    name: str = Field(validation_alias="Name")
    count: int = Field(default=1, validation_alias="Count")
    services: list[_Service] | None = Field(default=None, validation_alias="Services")


class _Job(BaseModel):
    groups: list[_Group] = Field(default_factory=list, validation_alias="TaskGroups")

    def wanted(self) -> tuple[int, Said]:
        """Return the count of the group of model servers, and what its service's tags say."""
        group = next((group for group in self.groups if group.name == GROUP), None)
        if group is None:
            return 0, Said()
        tags = [tag for service in group.services or [] for tag in service.tags or []]
        return group.count, read_tags(tags)


STUBS = TypeAdapter(list[_Stub])
JOB = TypeAdapter(_Job)


class JobWatcher:
    """Follows the jobs whose name starts with `prefix`; `on_jobs` gets the complete list after each change.

    The list says at once what runs; a job's own count and tags are read again when its definition has changed.
    """

    def __init__(self, api: TaskApi, prefix: str, on_jobs: Callable[[Collection[Planned]], None]) -> None:
        self._api = api
        self._prefix = prefix
        self._on_jobs = on_jobs
        self._stubs: list[_Stub] = []
        self._definitions: dict[str, tuple[int, int, Said]] = {}  # job -> version, count, tags
        self._listed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with self._api.session() as session, asyncio.TaskGroup() as group:
            group.create_task(self._api.follow(session, "/v1/jobs", STUBS, self._take, {"prefix": self._prefix}))
            group.create_task(self._describe(session))

    def _take(self, stubs: list[_Stub]) -> None:
        self._stubs = [stub for stub in stubs if stub.id.startswith(self._prefix)]
        self._listed.set()

    async def _describe(self, session: aiohttp.ClientSession) -> None:
        """Read the definitions that the newest list says are new, then publish."""
        while True:
            await self._listed.wait()
            self._listed.clear()
            stubs = self._stubs
            unread = False
            for stub in stubs:
                known = self._definitions.get(stub.id)
                if known is None or known[0] != stub.version:
                    try:
                        job = await self._api.ask(session, f"/v1/job/{quote(stub.id, safe='')}", JOB)
                    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                        log.warning("job_unreadable", job=stub.id, error=str(error) or type(error).__name__)
                        unread = True
                        continue
                    self._definitions[stub.id] = (stub.version, *job.wanted())
            self._on_jobs([self._planned(stub) for stub in stubs if stub.id in self._definitions])
            if unread:
                await asyncio.sleep(BACKOFF_MOST_S)
                self._listed.set()

    def _planned(self, stub: _Stub) -> Planned:
        _, count, said = self._definitions[stub.id]
        # The slot by its tag: in a fleet a job's name ends with that of its machine.
        return Planned(stub.id, said.slot or stub.id.removeprefix(self._prefix), said, count, stub.running(), stub.stop)
