"""The worker's end of the channel: comes to the hub, asks what is to be done, has it run, says what came of it.

The hub never reaches the worker: all connections go out, and the key of the worker's owner goes with each. What is lost
on the way is asked for again; the runner knows each call by its id and runs it once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import aiohttp
import structlog
from pydantic import BaseModel, ValidationError

from roost.agent.channel.wire import (
    FIRST_PROTOCOL,
    MOST_PENDING,
    MOST_RESULT_BYTES,
    PATH,
    POLL_S,
    PROTOCOL,
    PROTOCOL_HEADER,
    STATED,
    Announced,
    Lease,
    Request,
    Requests,
    is_ours,
    recall_id,
    sent,
)
from roost.agent.tool import Outcome, Remembering, ToolCall, ToolResult, ToolRunner, sendable
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

QUICK = aiohttp.ClientTimeout(total=15.0)
WAITING = aiohttp.ClientTimeout(total=POLL_S + 15.0)
FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 10.0
MOST_ANSWER_BYTES = 16 << 20
"""Of what a hub says: sixteen calls with their arguments."""
ONE_RELEASE = "Bring the older one of the two to the other's release of Roost, see `roost --version` on both machines."
AGAIN = frozenset({408, 425, 429})
"""Refusals after which it is tried again."""


class Tell:
    """Hears what happens; does nothing with it."""

    def connected(self, owner: str) -> None:
        """The hub took the worker."""

    def lost(self, reason: str) -> None:
        """The hub does not answer; it is tried again."""

    def begins(self, call: ToolCall) -> None:
        """A call was asked for."""

    def ended(self, call: ToolCall, result: ToolResult) -> None:
        """A call is over."""


class _AgainError(Exception):
    """It did not work now, and may later."""


class _LostError(Exception):
    """The hub does not know the worker (any more)."""


class WorkerClient:
    """One worker. `announced` says what it offers now; it is asked again and again."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        key: str,
        runner: ToolRunner,
        announced: Callable[[], Announced],
        tell: Tell | None = None,
    ) -> None:
        self._http = http
        self._url = f"{base_url.rstrip('/')}{PATH}"
        self._headers = {"Authorization": f"Bearer {key}", **STATED}
        self._runner = runner
        self._announced = announced
        self._tell = tell or Tell()
        self._lease = ""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._offered: Announced | None = None
        self._room = asyncio.Semaphore(MOST_PENDING)

    async def work(self) -> None:
        """Work until it is cancelled; what runs then is ended, and the hub is told.

        Raises:
            RoostError: the hub refuses the key or this protocol, or another process took this worker's place.
        """
        waits = FIRST_RETRY_S
        told = False
        try:
            while True:
                try:
                    await self._come()
                    told, waits = False, FIRST_RETRY_S
                    await self._serve()
                except _LostError:
                    log.info("lease_lost")
                except _AgainError as error:
                    self._lease = ""
                    if not told:
                        self._tell.lost(str(error))
                        told = True
                await asyncio.sleep(waits * random.uniform(0.5, 1.0))  # noqa: S311 - spreads attempts, keeps no secret
                waits = min(waits * 2, LONGEST_RETRY_S)
        finally:
            await self._leave()

    async def _come(self) -> None:
        offered = self._announced()
        lease = read(Lease, await self._ask("POST", "", offered))
        self._lease, self._offered = lease.lease, offered
        self._tell.connected(lease.owner)

    async def _serve(self) -> None:
        """Ask for requests and have them done, until the hub does not know the worker any more."""
        after = 0
        while True:
            if (offered := self._announced()) != self._offered:
                await self._ask("PUT", f"/{self._lease}", offered)
                self._offered = offered
            began = asyncio.get_running_loop().time()
            said = await self._ask("GET", f"/{self._lease}/requests?after={after}", limit=WAITING)
            found = read(Requests, said)
            if not found.requests and asyncio.get_running_loop().time() - began < FIRST_RETRY_S:
                await asyncio.sleep(FIRST_RETRY_S)  # a hub that stops lets no question wait
            for request in found.requests:
                after = max(after, request.number)
                self._take(request)

    def _take(self, request: Request) -> None:
        if request.cancel and (task := self._running.get(request.cancel)):
            task.cancel()
        if request.call and request.call.id not in self._running:
            call = request.call
            task = asyncio.create_task(self._run(call))
            self._running[call.id] = task
            task.add_done_callback(lambda _task: self._running.pop(call.id, None))

        if request.recall and (name := recall_id(request.recall.id)) not in self._running:
            task = asyncio.create_task(self._recall(name, request.recall))
            self._running[name] = task
            task.add_done_callback(lambda _task: self._running.pop(name, None))

    async def _recall(self, name: str, call: ToolCall) -> None:
        """Tell what came of a call; that it is not known here is no word on whether it was made."""
        known = await self._runner.recall(call) if isinstance(self._runner, Remembering) else None
        found = known or ToolResult(id=name, outcome=Outcome.UNKNOWN, text="This worker does not know the call.")
        await self._answer(found.model_copy(update={"id": name}))

    async def _run(self, call: ToolCall) -> None:
        async with self._room:
            self._tell.begins(call)
            try:
                result = await self._runner.run(call)
            except Exception as error:  # a fault of the runner itself: the model must not wait for ever
                log.exception("runner_failed", call=call.id)
                text = f"The worker failed, and it may have been done: {type(error).__name__}: {error}."
                result = ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=text)
            self._tell.ended(call, result)
        await self._answer(result)

    async def _answer(self, result: ToolResult) -> None:
        """Say what came of a call until the hub has heard it, or does not want to."""
        result = sendable(result, MOST_RESULT_BYTES)
        waits, refused_once = FIRST_RETRY_S, False
        while True:
            lease = self._lease
            try:
                if lease:
                    await self._ask("POST", f"/{lease}/results", result)
                    return
            except (_AgainError, _LostError):
                pass
            except RoostError as error:
                if refused_once:
                    log.warning("result_refused", call=result.id, reason=error.message)
                    return
                # too large, or not as the hub wants it: what happened stays true, the model hears less of it
                text = f"What it said could not be sent: {error.message}"
                result, refused_once = ToolResult(id=result.id, outcome=result.outcome, text=text), True
                continue
            await asyncio.sleep(waits)
            waits = min(waits * 2, LONGEST_RETRY_S)

    async def _leave(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._lease:
            with suppress(_AgainError, _LostError, RoostError):
                await self._ask("DELETE", f"/{self._lease}")

    async def _ask(
        self, method: str, path: str, body: BaseModel | None = None, limit: aiohttp.ClientTimeout = QUICK
    ) -> bytes:
        """Ask the hub something; return what it says.

        Raises:
            _AgainError: it does not answer now.
            _LostError: it does not know this worker.
            RoostError: it refuses.
        """
        data = sent(body) if body else None
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with self._http.request(
                method, f"{self._url}{path}", data=data, headers=headers, timeout=limit, allow_redirects=False
            ) as got:
                said, status, stated = await _bounded(got), got.status, got.headers.get(PROTOCOL_HEADER)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _AgainError(str(error) or type(error).__name__) from error
        if status == 404 and path:
            raise _LostError
        if status in AGAIN or status >= 500:
            raise _AgainError(f"it answers with status {status}")
        if status >= 300:
            raise refused(status, said)
        if (stated or not path) and not is_ours(stated):
            raise other_protocol(stated)
        return said


def other_protocol(stated: str | None) -> RoostError:
    """Return what to tell the user of a hub that states another version of the channel."""
    return RoostError(
        f"The hub speaks version {stated or FIRST_PROTOCOL} of the channel, and this release of Roost {PROTOCOL}.",
        fix=ONE_RELEASE,
    )


D = TypeVar("D", bound=BaseModel)


def read(document: type[D], said: bytes) -> D:
    """Return what a hub said as a document.

    Raises:
        RoostError: it is none.
    """
    try:
        return document.model_validate_json(said)
    except ValidationError:
        raise RoostError(
            "What answers is no hub of this version of Roost.", fix="Check ROOST_API, and that both have one version."
        ) from None


async def _bounded(got: aiohttp.ClientResponse) -> bytes:
    parts = bytearray()
    async for block in got.content.iter_any():
        parts += block
        if len(parts) > MOST_ANSWER_BYTES:
            raise _AgainError("it says too much")
    return bytes(parts)


def refused(status: int, said: bytes) -> RoostError:
    """Return what to tell the user of a refusal."""
    fixes = {
        401: "Set ROOST_API_KEY to a key that is valid: `roost keys list` shows which are.",
        403: "A worker needs a key with the role user or admin.",
        404: "The service there has no agent: it needs a folder for its state (ROOST_STATE_DIR).",
        409: "End the other process, or this one.",
        422: ONE_RELEASE,
    }
    try:
        text = str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = f"status {status}"
    return RoostError(f"The hub refused: {text}", fix=fixes.get(status, ""))
