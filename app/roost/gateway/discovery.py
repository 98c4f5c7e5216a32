"""Where model servers are said to be: given, or from Nomad's service catalogue. Membership only, never health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field, TypeAdapter

from roost.gateway.endpoints.endpoint import SETTINGS, Member
from roost.gateway.endpoints.given import parse_given
from roost.gateway.tags import read_tags
from roost.gateway.task_api import TaskApi
from roost.gateway.tasks import spawn


class _Stub(BaseModel):
    name: str = Field(validation_alias="ServiceName")


class _Namespace(BaseModel):
    services: list[_Stub] = Field(default_factory=list, validation_alias="Services")


class Registration(BaseModel):
    address: str = Field(validation_alias="Address")
    port: int = Field(validation_alias="Port")
    tags: list[str] | None = Field(default=None, validation_alias="Tags")
    job: str = Field(default="", validation_alias="JobID")
    allocation: str = Field(default="", validation_alias="AllocID")
    node: str = Field(default="", validation_alias="NodeID")


NAMESPACES = TypeAdapter(list[_Namespace])
REGISTRATIONS = TypeAdapter(list[Registration])


def given_members(text: str) -> tuple[Member, ...]:
    """Return the members that the settings name; see `parse_given`."""
    return tuple(Member(slot, url, source=SETTINGS) for slot, url in parse_given(text))


def member_of(slot: str, registration: Registration) -> Member:
    """Turn a registration into a member; its tags say beforehand what it serves and how."""
    said = read_tags(registration.tags or ())
    return Member(
        slot,
        origin(registration, tls=said.tls),
        said.models,
        said.engine,
        job=registration.job,
        allocation=registration.allocation,
        node=registration.node,
        adapters=said.adapters,
        keeps_slots=said.keeps_slots,
        tier=said.tier,
    )


def origin(registration: Registration, *, tls: bool = False) -> str:
    """Return where a registered service answers, as a base URL."""
    host = f"[{registration.address}]" if ":" in registration.address else registration.address
    return f"{'https' if tls else 'http'}://{host}:{registration.port}"


class NomadWatcher:
    """Follows the services whose name starts with `prefix` through the Task API's Unix socket.

    While Nomad does not answer, what was known stays. `on_members` gets the complete list after each change,
    `on_death` the name of a background task that died.
    """

    def __init__(
        self,
        api: TaskApi,
        prefix: str,
        on_members: Callable[[Collection[Member]], None],
        on_death: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._api = api
        self._prefix = prefix
        self._on_members = on_members
        self._on_death = on_death
        self._services: dict[str, tuple[Member, ...] | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with self._api.session() as session:
            try:
                await self._api.follow(session, "/v1/services", NAMESPACES, lambda found: self._names(session, found))
            finally:
                tasks = list(self._tasks.values())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _names(self, session: aiohttp.ClientSession, namespaces: list[_Namespace]) -> None:
        stubs = [stub.name for namespace in namespaces for stub in namespace.services]
        names = {name for name in stubs if name.startswith(self._prefix)}
        for gone in self._services.keys() - names:
            del self._services[gone]
            self._tasks.pop(gone).cancel()
        for name in names - self._services.keys():
            self._services[name] = None
            self._tasks[name] = spawn(self._service(session, name), f"watch {name}", self._on_death)
        self._publish()

    async def _service(self, session: aiohttp.ClientSession, name: str) -> None:
        slot = name.removeprefix(self._prefix)

        def take(registrations: list[Registration]) -> None:
            self._services[name] = tuple(member_of(slot, registration) for registration in registrations)
            self._publish()

        await self._api.follow(session, f"/v1/service/{quote(name, safe='')}", REGISTRATIONS, take)

    def _publish(self) -> None:
        known = [members for members in self._services.values() if members is not None]
        if len(known) == len(self._services):
            self._on_members([member for members in known for member in members])
