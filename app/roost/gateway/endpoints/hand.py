"""The endpoints that were added by hand, and those that are drained: followed in their document, and changed there.

The document lies in a Nomad variable that Nomad renders into a file for every gateway, or in a plain file. It is read
from the file; a change of ours is in force here at once, and elsewhere when the file has come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import structlog

from roost.fleet.document_store import ATTEMPTS, PAUSE_S, ConflictError
from roost.fleet.endpoint_list import CLOUD, Change, EndpointDocument, HandEndpoint, parse_document
from roost.fleet.endpoint_store import ENDPOINTS, file_store
from roost.gateway.endpoints.connect import trust
from roost.gateway.endpoints.endpoint import BY_HAND, Member
from roost.gateway.registry import Registry
from roost.gateway.secret_file import WatchedFile
from roost.gateway.task_api import NomadError, StaleError, TaskApi
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

POLL_S = 0.5
RENDERED_WITHIN_S = 15.0  # what we have changed is in the file by then; if it is not, the file is right


class Store(Protocol):
    """Where the document lies, for a program that must not wait for it."""

    async def load(self) -> tuple[EndpointDocument, str]:
        """Return the document and its version. Raises `RoostError`."""
        ...

    async def save(self, document: EndpointDocument, version: str) -> None:
        """Replace the document if it still has that version, else raise `ConflictError`. Raises `RoostError`."""
        ...


class VariableStore:
    """The document in a Nomad variable, through the Task API."""

    def __init__(self, api: TaskApi, variable: str) -> None:
        self._api = api
        self._variable = variable

    async def load(self) -> tuple[EndpointDocument, str]:
        """Read the variable."""
        try:
            items, index = await self._api.variable(self._variable)
        except NomadError as error:
            raise RoostError(f"The endpoints cannot be read: {error}.", fix="See `roost status`.") from None
        return ENDPOINTS.parsed(items.get(ENDPOINTS.item, ""), self._variable), str(index)

    async def save(self, document: EndpointDocument, version: str) -> None:
        """Write the variable with check-and-set."""
        try:
            await self._api.set_variable(self._variable, {ENDPOINTS.item: document.text()}, int(version))
        except StaleError:
            raise ENDPOINTS.conflict() from None
        except NomadError as error:
            if "limited to" in str(error):
                raise ENDPOINTS.full(str(error)) from None
            raise RoostError(f"The endpoints cannot be kept: {error}.", fix="See `roost status`.") from None


class PlainFile:
    """The document in a file of ours."""

    def __init__(self, path: Path) -> None:
        self._store = file_store(path)

    async def load(self) -> tuple[EndpointDocument, str]:
        """Read the file."""
        return await asyncio.to_thread(self._store.load)

    async def save(self, document: EndpointDocument, version: str) -> None:
        """Write the file."""
        await asyncio.to_thread(self._store.save, document, version)


def untold(_secrets: Collection[str]) -> None:
    """Stand for nobody who has to know of secrets."""


class HandEndpoints:
    """One object a service. `file` is what is followed; without a `store` nothing can be changed here.

    `on_keys` gets the endpoints' keys before one of them is used, so that no line of the log shows them.
    """

    def __init__(
        self,
        registry: Registry,
        file: Path | None,
        store: Store | None,
        on_keys: Callable[[Collection[str]], None] = untold,
    ) -> None:
        self._registry = registry
        self._on_keys = on_keys
        self._path = file
        self._file = WatchedFile(file, parse_document, EndpointDocument()) if file else None
        self._store = store
        self._document = EndpointDocument()
        self._changed_at = float("-inf")

    @property
    def document(self) -> EndpointDocument:
        """Return what is in force."""
        return self._document

    def look(self) -> None:
        """Take over what the file says, if that is not older than what we know."""
        if self._file is None or self._path is None or not (self._document.revision or self._path.exists()):
            return
        found = self._file.value()
        waited = time.monotonic() - self._changed_at > RENDERED_WITHIN_S
        if found != self._document and (found.revision >= self._document.revision or waited):
            self._take(found)

    async def run(self) -> None:
        """Follow the file until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(POLL_S)

    async def change(self, change: Change) -> EndpointDocument:
        """Apply a change to the newest document, again and again while others change it; return what is stored then.

        Raises:
            RoostError: the change is not possible, or there is no place to keep it.
        """
        if self._store is None:
            raise RoostError(
                "This gateway has no place to keep endpoints.",
                fix="Set ROOST_ENDPOINTS_FILE to a file that it may write, and start it again.",
            )
        for attempt in range(ATTEMPTS):
            document, version = await self._store.load()
            wanted = change(document)
            if wanted == document:
                return document
            try:
                await self._store.save(wanted, version)
            except ConflictError:
                await asyncio.sleep(PAUSE_S * (attempt + 1))
                continue
            self._changed_at = time.monotonic()
            self._take(wanted)
            return wanted
        raise ConflictError("Others change the endpoints all the time.", fix="Run it again.")

    def _take(self, document: EndpointDocument) -> None:
        self._document = document
        self._on_keys([endpoint.key.get_secret_value() for endpoint in document.endpoints])
        usable = [endpoint for endpoint in document.endpoints if _usable(endpoint)]
        members = [member_of(endpoint) for endpoint in usable]
        ids = {endpoint.name: member.id for endpoint, member in zip(usable, members, strict=True)}
        self._registry.sync(members, BY_HAND)
        self._registry.drain({ids.get(d.endpoint, d.endpoint): d.allocation for d in document.drains})
        log.info("endpoints_by_hand", endpoints=len(members), drained=len(document.drains), revision=document.revision)


def _usable(endpoint: HandEndpoint) -> bool:
    """Say whether a client of it can be made; one that somebody wrote wrongly into the file harms no other."""
    try:
        trust(endpoint.ca)
    except RoostError as error:
        log.warning("endpoint_not_usable", endpoint=endpoint.name, error=error.message)
        return False
    return True


def member_of(endpoint: HandEndpoint) -> Member:
    """Return the member that an endpoint added by hand is."""
    return Member(
        endpoint.serves,
        endpoint.url,
        endpoint.models if endpoint.engine in CLOUD else (),
        endpoint.engine,
        tier=endpoint.tier,
        source=BY_HAND,
        by_name=not endpoint.auto,
        hand=endpoint,
    )
