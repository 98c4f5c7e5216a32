"""Where model servers are said to be: given, or from Nomad's service catalogue. Membership only, never health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import structlog
from pydantic import BaseModel, Field, TypeAdapter

from roost.gateway.registry import Member
from roost.gateway.routing import MAIN_SLOT
from roost.gateway.tasks import spawn

log = structlog.get_logger(__name__)

BLOCK_S = 60.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 2.0
MODEL_TAG = "model="
ENGINE_TAG = "engine="
T = TypeVar("T")


class _Stub(BaseModel):
    name: str = Field(validation_alias="ServiceName")


class _Namespace(BaseModel):
    services: list[_Stub] = Field(default_factory=list, validation_alias="Services")


class _Registration(BaseModel):
    address: str = Field(validation_alias="Address")
    port: int = Field(validation_alias="Port")
    tags: list[str] | None = Field(default=None, validation_alias="Tags")


NAMESPACES = TypeAdapter(list[_Namespace])
REGISTRATIONS = TypeAdapter(list[_Registration])


async def _never_repeat(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a query by itself: after a restart its index may belong to another history."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from None


def parse_static(text: str) -> tuple[Member, ...]:
    """Read `URL` or `slot=URL`, separated by commas; without a slot it is the main one."""
    members = []
    for word in (part.strip() for part in text.split(",")):
        if not word:
            continue
        slot, found, url = word.partition("=http")
        members.append(Member(slot, f"http{url}".rstrip("/")) if found else Member(MAIN_SLOT, word.rstrip("/")))
    return tuple(members)


def member_of(slot: str, registration: _Registration) -> Member:
    """Turn a registration into a member; tags `model=NAME` and `engine=NAME` say beforehand what it serves and how."""
    host = f"[{registration.address}]" if ":" in registration.address else registration.address
    models = tuple(t.removeprefix(MODEL_TAG) for t in registration.tags or () if t.startswith(MODEL_TAG))
    engines = [t.removeprefix(ENGINE_TAG) for t in registration.tags or () if t.startswith(ENGINE_TAG)]
    return Member(slot, f"http://{host}:{registration.port}", models, next(iter(engines), ""))


class NomadWatcher:
    """Follows the services whose name starts with `prefix` through the Task API's Unix socket.

    While Nomad does not answer, what was known stays. `on_members` gets the complete list after each change,
    `on_death` the name of a background task that died.
    """

    def __init__(
        self,
        socket: Path,
        token: str,
        prefix: str,
        on_members: Callable[[Collection[Member]], None],
        namespace: str = "default",
        on_death: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._socket = socket
        self._headers = {"X-Nomad-Token": token} if token else {}
        self._prefix = prefix
        self._namespace = namespace
        self._on_members = on_members
        self._on_death = on_death
        self._services: dict[str, tuple[Member, ...] | None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        connector = aiohttp.UnixConnector(str(self._socket), limit=0)
        async with aiohttp.ClientSession(
            connector=connector, headers=self._headers, middlewares=(_never_repeat,)
        ) as session:
            try:
                await self._follow(session, "/v1/services", NAMESPACES, lambda found: self._names(session, found))
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

        def take(registrations: list[_Registration]) -> None:
            self._services[name] = tuple(member_of(slot, registration) for registration in registrations)
            self._publish()

        await self._follow(session, f"/v1/service/{quote(name, safe='')}", REGISTRATIONS, take)

    def _publish(self) -> None:
        known = [members for members in self._services.values() if members is not None]
        if len(known) == len(self._services):
            self._on_members([member for members in known for member in members])

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        path: str,
        parser: TypeAdapter[T],
        take: Callable[[T], None],
    ) -> None:
        """Ask again and again with a blocking query; after any failure begin anew, more slowly each time."""
        index, pause = 0, BACKOFF_FIRST_S
        while True:
            try:
                new_index, value = await self._ask(session, path, index, parser)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                log.warning("nomad_unreachable", path=path, error=str(error) or type(error).__name__)
                index = 0
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_MOST_S)
                continue
            pause = BACKOFF_FIRST_S
            if index == 0 or new_index != index:
                take(value)
            # An index that went back belongs to another history of the cluster: ask without waiting.
            index = new_index if new_index >= index else 0

    async def _ask(
        self, session: aiohttp.ClientSession, path: str, index: int, parser: TypeAdapter[T]
    ) -> tuple[int, T]:
        query: Mapping[str, str] = {"namespace": self._namespace}
        if index:
            query = {**query, "index": str(index), "wait": f"{BLOCK_S:.0f}s"}
        timeout = aiohttp.ClientTimeout(total=BLOCK_S * 1.25 if index else 10.0)
        url = f"http://nomad{path}"
        async with session.get(url, params=query, timeout=timeout) as answer:
            answer.raise_for_status()
            body = await answer.read()
            return max(int(answer.headers.get("X-Nomad-Index", "0")), 1), parser.validate_json(body)
