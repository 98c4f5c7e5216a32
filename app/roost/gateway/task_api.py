"""Nomad's HTTP API through the Task API's Unix socket, with this task's own identity.

https://developer.hashicorp.com/nomad/api-docs/task-api; what the identity may do stands in `fleet/nomad_setup.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import structlog
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

log = structlog.get_logger(__name__)

BLOCK_S = 60.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 2.0
TIMEOUT_S = 10.0
CONFLICT = 409
GROUP = "engine"  # the one task group of a model server's job
T = TypeVar("T")


class NomadError(Exception):
    """Nomad did not answer, or refused; the text says which, for the log and the operator."""


class StaleError(NomadError):
    """What was to be replaced is no longer what it was."""


class _Variable(BaseModel):
    items: dict[str, str] = Field(validation_alias="Items")
    index: int = Field(validation_alias="ModifyIndex")


async def _never_repeat(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a query by itself: after a restart its index may belong to another history."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from None


class TaskApi:
    """Queries that wait for a change, and the few commands that the agent may give."""

    def __init__(self, socket: Path, token: str, namespace: str = "default") -> None:
        self._socket = socket
        self._headers = {"X-Nomad-Token": token} if token else {}
        self._namespace = namespace

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open a session to the socket."""
        connector = aiohttp.UnixConnector(str(self._socket), limit=0)
        async with aiohttp.ClientSession(
            connector=connector, headers=self._headers, middlewares=(_never_repeat,)
        ) as session:
            yield session

    async def follow(
        self,
        session: aiohttp.ClientSession,
        path: str,
        parser: TypeAdapter[T],
        take: Callable[[T], None],
        query: Mapping[str, str] | None = None,
    ) -> None:
        """Ask again and again with a blocking query; after any failure begin anew, more slowly each time."""
        index, pause = 0, BACKOFF_FIRST_S
        while True:
            try:
                new_index, value = await self._ask(session, path, index, parser, query or {})
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
        self,
        session: aiohttp.ClientSession,
        path: str,
        index: int,
        parser: TypeAdapter[T],
        more: Mapping[str, str],
    ) -> tuple[int, T]:
        query: Mapping[str, str] = {"namespace": self._namespace, **more}
        if index:
            query = {**query, "index": str(index), "wait": f"{BLOCK_S:.0f}s"}
        timeout = aiohttp.ClientTimeout(total=BLOCK_S * 1.25 if index else TIMEOUT_S)
        async with session.get(f"http://nomad{path}", params=query, timeout=timeout) as answer:
            answer.raise_for_status()
            body = await answer.read()
            return max(int(answer.headers.get("X-Nomad-Index", "0")), 1), parser.validate_json(body)

    async def ask(
        self,
        session: aiohttp.ClientSession,
        path: str,
        parser: TypeAdapter[T],
        query: Mapping[str, str] | None = None,
    ) -> T:
        """Ask once.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError, ValueError: there is no answer, or not the expected one.
        """
        return (await self._ask(session, path, 0, parser, query or {}))[1]

    async def scale(self, job: str, count: int, why: str) -> None:
        """Set how many servers a model's job runs (0 or 1); needs the capability `scale-job`.

        Raises:
            NomadError: it did not answer or refused, for example while the job is being deployed.
        """
        body = {"Count": count, "Target": {"Group": GROUP}, "Message": why}
        await self._command(f"/v1/job/{quote(job, safe='')}/scale", body, {})

    async def replace(self, allocation: str) -> None:
        """Have an allocation stopped and another one started for it; needs the capability `alloc-lifecycle`.

        What does not end by itself is killed after the job's `kill_timeout`.

        Raises:
            NomadError: it did not answer or refused.
        """
        path = f"/v1/allocation/{quote(allocation, safe='')}/stop"
        await self._command(path, {}, {"no_shutdown_delay": "true"})

    async def variable(self, path: str) -> tuple[dict[str, str], int]:
        """Return a variable's items and its index for `set_variable`; none and 0 where there is no such variable.

        Raises:
            NomadError: it did not answer or refused.
        """
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        url, params = f"http://nomad/v1/var/{quote(path)}", {"namespace": self._namespace}
        try:
            async with self.session() as session, session.get(url, params=params, timeout=timeout) as answer:
                if answer.status == 404:
                    return {}, 0
                body = await answer.read()
                if answer.status != 200:
                    raise NomadError(f"Nomad answered {answer.status}: {body.decode(errors='replace').strip()[:200]}")
                found = _Variable.model_validate_json(body)
                return found.items, found.index
        except (aiohttp.ClientError, OSError, TimeoutError, ValidationError) as error:
            raise NomadError(f"Nomad does not answer: {str(error) or type(error).__name__}") from None

    async def set_variable(self, path: str, items: Mapping[str, str], index: int) -> None:
        """Replace a variable if it still has that index; needs a policy that lets this task write it.

        Raises:
            StaleError: somebody else has changed it.
            NomadError: it did not answer or refused.
        """
        body = {"Namespace": self._namespace, "Path": path, "Items": items}
        await self._command(f"/v1/var/{quote(path)}", body, {"cas": str(index)})

    async def _command(self, path: str, body: object, query: Mapping[str, str]) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        params = {"namespace": self._namespace, **query}
        try:
            async with (
                self.session() as session,
                session.put(f"http://nomad{path}", json=body, params=params, timeout=timeout) as answer,
            ):
                text = await answer.text()
                if answer.status == CONFLICT:
                    raise StaleError("somebody else has changed it")
                if answer.status != 200:
                    raise NomadError(f"Nomad answered {answer.status}: {text.strip()[:200]}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NomadError(f"Nomad does not answer: {str(error) or type(error).__name__}") from None
