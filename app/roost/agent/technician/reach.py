"""The way of jobs to workers and their MCP servers: through the hub, with the key of the jobs' owner.

A job in a folder of this machine uses the tools here, and foreign tools of its key's workers; one in a folder that a
worker gives (`MACHINE/NAME`) uses that worker's. Which one a call went to is read from the job and the call, so that
whoever goes on after a crash asks the same one what came of it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import structlog

from roost.agent.channel.client import ONE_RELEASE, other_protocol
from roost.agent.channel.wire import (
    ANSWER_S,
    CALLS_PATH,
    MOST_TOOL_S,
    PROTOCOL_HEADER,
    STATED,
    TOOLS_PATH,
    is_ours,
)
from roost.agent.foreign import is_foreign, tool_set
from roost.agent.permission.policy import ALLOWED_PATH
from roost.agent.technician.job import Job
from roost.agent.technician.mind import PAUSES_S
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.agent.tools.runner import LocalRunner
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)
QUICK = aiohttp.ClientTimeout(total=20.0)
LONG = aiohttp.ClientTimeout(total=MOST_TOOL_S + 2 * ANSWER_S)
LOST = "The hub was lost while this ran: it may have been done. Look before it is done again."
UNREADABLE = 422
"""What a hub says to another protocol, and to what it cannot read of one."""
ELSEWHERE = "/"
"""In a workspace's name: it is a worker's, of the machine that is named before it."""
T = TypeVar("T")
Json = Any


class HubRunner:
    """Calls tools of the key's workers, and knows what is allowed for good. Used in one event loop."""

    def __init__(self, base_url: str, key: str, ca: Path | None, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", **STATED}
        self._ca = ca
        self._pauses_s = pauses_s
        self._http: aiohttp.ClientSession | None = None

    async def tools(self) -> list[ToolSpec]:
        """Return the tools of all workers.

        Raises:
            RoostError: the hub does not answer, or has no agent.
        """
        return await self._tools("")

    async def tools_at(self, workspace: str) -> list[ToolSpec]:
        """Return the tools of the worker that gives a workspace, waited for a while.

        Raises:
            RoostError: the hub does not answer, or no worker is there.
        """

        async def there() -> list[ToolSpec]:
            if found := await self._tools(workspace):
                return found
            raise RoostError(f"No worker is connected that gives {workspace}.", fix="Start `roost worker` there.")

        return await self._patient(there)

    async def _tools(self, workspace: str) -> list[ToolSpec]:
        path = f"{TOOLS_PATH}?reachable=true&workspace={quote(workspace, safe='')}"
        return await self._ask("GET", path, lambda said: [ToolSpec.model_validate(one) for one in said["data"]])

    async def run(self, call: ToolCall) -> ToolResult:
        """Have a call made; one whose answer was lost is `UNKNOWN`."""
        try:
            return await self._ask(
                "POST", CALLS_PATH, ToolResult.model_validate, call.model_dump(exclude_defaults=True), LONG
            )
        except RefusedError as error:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=error.message)
        except RoostError:
            return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=LOST)

    async def recall(self, call: ToolCall) -> ToolResult:
        """Return what its worker knows of a call: `UNKNOWN` where that cannot be asked, never that it was not made."""
        try:
            path = f"{CALLS_PATH}/recall"
            return await self._patient(
                lambda: self._ask("POST", path, ToolResult.model_validate, call.model_dump(exclude_defaults=True), LONG)
            )
        except RoostError:
            return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=LOST)

    async def has(self, mark: str) -> bool:
        """Say whether the key allowed calls with this mark for good; not, where that cannot be asked."""
        try:
            return await self._ask("GET", ALLOWED_PATH, lambda said: any(one["mark"] == mark for one in said["data"]))
        except RoostError:
            return False

    async def add(self, tool: str, mark: str) -> None:
        """Allow calls with this mark for good. Raises RoostError."""
        await self._ask("POST", ALLOWED_PATH, lambda _said: None, {"tool": tool, "mark": mark})

    async def close(self) -> None:
        """Close the connections."""
        if self._http:
            await self._http.close()
            self._http = None

    async def _patient(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again after each pause while nobody answers: a hub that is started anew, and its workers, come back."""
        for pause_s in self._pauses_s:
            try:
                return await ask()
            except RefusedError:
                raise
            except RoostError:
                await asyncio.sleep(pause_s)
        return await ask()

    async def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[Json], T],
        body: Json = None,
        limit: aiohttp.ClientTimeout = QUICK,
    ) -> T:
        if self._http is None:
            trusted = ssl.create_default_context(cafile=self._ca) if self._ca else True
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted), trust_env=False)
        try:
            async with self._http.request(
                method,
                f"{self._base_url}{path}",
                json=body,
                headers=self._headers,
                timeout=limit,
                allow_redirects=False,
            ) as got:
                said, status, stated = await got.read(), got.status, got.headers.get(PROTOCOL_HEADER)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RoostError(f"The hub does not answer: {str(error) or type(error).__name__}.") from None
        if 400 <= status < 500 and status not in {408, 425, 429}:
            raise RefusedError(
                f"The hub refused with status {status}: {said[:200].decode(errors='replace')}",
                fix=ONE_RELEASE if status == UNREADABLE else "",
            )
        if status >= 300:
            raise RoostError(f"The hub answers with status {status}.")
        if stated and not is_ours(stated):
            raise other_protocol(stated)
        try:
            return read(json.loads(said) if said else None)
        except (ValueError, LookupError, TypeError):  # a proxy's page, or an answer of another form
            raise RoostError("What answers is no hub of this version of Roost.", fix="Look at ROOST_API.") from None


class RefusedError(RoostError):
    """The hub does not want it: nothing was done."""


class JobRunner:
    """The tools of one job. `elsewhere` are those of the hub's workers, as they were when this was made."""

    def __init__(self, job: Job, local: LocalRunner, hub: HubRunner, elsewhere: Sequence[ToolSpec]) -> None:
        self._remote = ELSEWHERE in (job.workspace or "")
        here = () if self._remote else local.tools()
        taken = {spec.name for spec in here}
        theirs = [
            spec for spec in elsewhere
            if spec.name not in taken and (self._remote or spec.permission is Permission.FOREIGN)
        ]  # fmt: skip
        self._tools = tool_set(job.goal, [*here, *theirs])
        self._local = local
        self._hub = hub

    def tools(self) -> Sequence[ToolSpec]:
        """Return them."""
        return self._tools

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call here, or have it run."""
        if self._at_worker(call):
            return await self._hub.run(self._placed(call))
        return await self._local.run(call)

    async def recall(self, call: ToolCall) -> ToolResult | None:
        """Return what is known of a call where it went."""
        if self._at_worker(call):
            return await self._hub.recall(self._placed(call))
        return await self._local.recall(call)

    def _at_worker(self, call: ToolCall) -> bool:
        return self._remote or is_foreign(call.name)

    def _placed(self, call: ToolCall) -> ToolCall:
        """Return a call as a worker can place it: a folder of this machine means nothing to a foreign tool."""
        return call if self._remote else call.model_copy(update={"workspace": None})


class Reach:
    """Gives each job its tools."""

    def __init__(self, local: LocalRunner, hub: HubRunner) -> None:
        self._local = local
        self._hub = hub

    async def __call__(self, job: Job) -> ToolRunner:
        """Return a job's tools as they are now.

        Raises:
            RoostError: it works in a worker's folder, and the hub does not answer or has no worker.
        """
        if job.workspace and ELSEWHERE in job.workspace:
            return JobRunner(job, self._local, self._hub, await self._hub.tools_at(job.workspace))
        try:
            elsewhere = await self._hub.tools()
        except RoostError as error:
            log.info("no_foreign_tools", reason=error.message)
            elsewhere = []
        return JobRunner(job, self._local, self._hub, elsewhere)
