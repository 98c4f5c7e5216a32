"""The hub's end of the channel: which workers are there, what they are to do, who waits for it.

Everything is found by the name of the key that asks. A call goes to a worker of the key whose session makes it, and to
no other; what another key's worker is asked is not there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import structlog

from roost.agent.channel.wire import (
    ANSWER_S,
    GONE_S,
    MOST_WORKERS,
    MOST_WORKERS_OF_KEY,
    POLL_S,
    Announced,
    recall_id,
)
from roost.agent.channel.worker import Worker
from roost.agent.foreign import is_foreign
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolSpec
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

NO_WORKER = (
    "No worker is connected, so nothing can be done with files, programs or pages. Name a folder with "
    "`roost workspace add PATH` and start `roost worker` on the machine where it is"
)
SILENT = "The worker gave no answer in time: it may have been done. Look before it is done again."
NOT_KNOWN = "No worker knows what came of it: it may have been done. Look before it is done again."
LEASE_BYTES = 16
MOST_OLD_LEASES = 64


class NoWorkerError(RoostError):
    """There is no such worker, or none of that key."""


class ReplacedError(RoostError):
    """The worker came again as another process: this one has nothing to do any more."""


class TooManyError(RoostError):
    """More workers than are taken."""


class Desk:
    """All workers of a hub."""

    def __init__(self, *, poll_s: float = POLL_S, gone_s: float = GONE_S, answer_s: float = ANSWER_S) -> None:
        self.poll_s = poll_s
        self.answer_s = answer_s
        self._gone_s = gone_s
        self._workers: dict[tuple[str, str], Worker] = {}
        self._leases: dict[str, Worker] = {}
        self._replaced: dict[str, str] = {}
        self._closed = False

    def announce(self, owner: str, announced: Announced) -> Worker:
        """Let a worker come. One with the same id takes the place of the one before, and what that was asked.

        Raises:
            TooManyError: there are too many.
        """
        place = (owner, announced.id)
        before = self._workers.get(place)
        if before is None:
            count = sum(1 for name, _ in self._workers if name == owner)
            if count >= MOST_WORKERS_OF_KEY or len(self._workers) >= MOST_WORKERS:
                raise TooManyError("Too many workers are connected.", fix="End one that is not needed.")
            before = Worker(owner, announced, "", self._drop, self._gone_s)
            self._workers[place] = before
        elif before.lease:
            self._leases.pop(before.lease, None)
            self._replaced[before.lease] = owner
            while len(self._replaced) > MOST_OLD_LEASES:
                del self._replaced[next(iter(self._replaced))]
            before.interrupt()
        before.announced = announced
        before.lease = secrets.token_urlsafe(LEASE_BYTES)
        self._leases[before.lease] = before
        before.await_poll()
        log.info("worker_came", owner=owner, worker=announced.id, tools=len(announced.tools))
        return before

    def worker(self, owner: str, lease: str) -> Worker:
        """Return a worker by its lease.

        Raises:
            ReplacedError: it came again as another process.
            NoWorkerError: this key has none of that lease.
        """
        if self._replaced.get(lease) == owner:
            raise ReplacedError("Another process of this worker took its place.")
        found = self._leases.get(lease)
        if found is None or found.owner != owner:
            raise NoWorkerError("There is no such worker.")
        return found

    def change(self, worker: Worker, announced: Announced) -> None:
        """Take what a worker offers now; its id stays."""
        worker.announced = announced.model_copy(update={"id": worker.announced.id})

    def leave(self, worker: Worker) -> None:
        """Let a worker go that says so."""
        self._drop(worker)

    def of(self, owner: str) -> list[Worker]:
        """Return a key's workers, by host."""
        found = [worker for (name, _), worker in self._workers.items() if name == owner]
        return sorted(found, key=lambda one: (one.announced.host, one.announced.id))

    def runner(self, owner: str, workspace: str | None = None) -> WorkerRunner:
        """Return what runs tools for a session of a key, in a workspace if one is chosen."""
        return WorkerRunner(self, owner, workspace)

    def let_go(self) -> None:
        """End the questions that wait: the service stops, and workers come again when it is back."""
        self._closed = True
        for worker in self._workers.values():
            worker.interrupt()

    @property
    def wait_s(self) -> float:
        """Return how long a question may wait now, in seconds."""
        return 0.0 if self._closed else self.poll_s

    def _drop(self, worker: Worker) -> None:
        if self._workers.pop((worker.owner, worker.announced.id), None) is worker:
            self._leases.pop(worker.lease, None)
            log.info("worker_left", owner=worker.owner, worker=worker.announced.id)
        worker.leave()


class WorkerRunner:
    """A `ToolRunner`: the workers of one key."""

    def __init__(self, desk: Desk, owner: str, workspace: str | None) -> None:
        self._desk = desk
        self._owner = owner
        self._workspace = workspace

    def tools(self) -> Sequence[ToolSpec]:
        """Return the tools of the workers that have the session's workspace; of all, where none is chosen or has it.

        Each is the one that `run` calls. Where several workers have it and none can be chosen, it is the one that is
        asked about: which it will be is not known yet.
        """
        workers = [worker for worker, _ in self._having(self._workspace)] or self._desk.of(self._owner)
        found: dict[str, list[ToolSpec]] = {}
        for worker in workers:
            for spec in worker.announced.tools:
                found.setdefault(spec.name, []).append(spec)
        return [self._reached(name) or min(specs, key=_harmless) for name, specs in found.items()]

    def reachable(self) -> Sequence[ToolSpec]:
        """Return the tools whose calls go to a worker as things are: for who has nobody to choose one."""
        return [spec for spec in self.tools() if self._reached(spec.name)]

    def _reached(self, tool: str) -> ToolSpec | None:
        try:
            worker, _ = self._chosen(self._workspace, tool)
        except NoWorkerError:
            return None
        return _spec(worker, tool)

    async def run(self, call: ToolCall) -> ToolResult:
        """Have a call run at a worker of the key."""
        try:
            worker, workspace = self._chosen(call.workspace, call.name)
        except NoWorkerError as error:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=error.message)
        spec = _spec(worker, call.name)
        if spec is None:
            text = f"The worker on {worker.announced.host} has no tool {call.name}."
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=text)
        answer = worker.ask(call.model_copy(update={"workspace": workspace}))
        if answer is None:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text="The worker has enough to do: wait.")
        finished = False
        try:
            async with asyncio.timeout(spec.timeout_s + self._desk.answer_s):
                result = await answer
            finished = True
        except TimeoutError:
            return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=SILENT)
        else:
            return result
        finally:
            worker.forget(call.id, cancel=not finished)

    async def recall(self, call: ToolCall) -> ToolResult:
        """Return what the worker that a call went to knows of it; UNKNOWN where it is not there, or knows nothing."""
        unknown = ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=NOT_KNOWN)
        try:
            worker, _ = self._chosen(call.workspace, call.name)
        except NoWorkerError:
            return unknown
        spec = _spec(worker, call.name)
        answer = worker.recall(call)
        if answer is None:
            return unknown
        try:
            async with asyncio.timeout((spec.timeout_s if spec else 0.0) + self._desk.answer_s):  # it may still run
                return (await answer).model_copy(update={"id": call.id})
        except TimeoutError:
            return unknown
        finally:
            worker.forget(recall_id(call.id), cancel=False)

    def _having(self, workspace: str | None) -> list[tuple[Worker, str]]:
        """Return the workers that have a workspace, named `NAME` or `HOST/NAME`, and its name there."""
        host, slash, name = (workspace or "").rpartition("/")
        return [
            (worker, folder.name)
            for worker in self._desk.of(self._owner)
            for folder in worker.announced.workspaces
            if folder.name == name and (not slash or worker.announced.host == host)
        ]

    def _chosen(self, workspace: str | None, tool: str) -> tuple[Worker, str | None]:
        """Return the worker that a call goes to, and its workspace.

        A foreign tool works in no workspace: without one it is called where it is, if that is at one place.

        Raises:
            NoWorkerError: there is none, or more than one could be meant.
        """
        workers = self._desk.of(self._owner)
        if not workers:
            raise NoWorkerError(f"{NO_WORKER}.")
        if workspace is None:
            if len(workers) == 1:
                return workers[0], None
            at = [one for one in workers if _spec(one, tool)] if is_foreign(tool) else []
            if len(at) == 1:
                return at[0], None
            having = [one for one in workers if one.announced.workspaces]
            if len(having) == 1:
                return having[0], None
            raise NoWorkerError(
                f"Several workers are connected: the user chooses by /workspace one of {self._names()}."
            )
        found = self._having(workspace)
        if len(found) == 1:
            return found[0]
        why = "There is no workspace" if not found else "More than one machine has a workspace"
        raise NoWorkerError(f"{why} {workspace}; there is: {self._names()}.")

    def _names(self) -> str:
        found = [
            f"{worker.announced.host}/{folder.name}"
            for worker in self._desk.of(self._owner)
            for folder in worker.announced.workspaces
        ]
        return ", ".join(found) or "none"


def _spec(worker: Worker, tool: str) -> ToolSpec | None:
    return next((one for one in worker.announced.tools if one.name == tool), None)


def _harmless(spec: ToolSpec) -> tuple[bool, bool]:
    """Return what orders tools of one name: first the one whose calls need the user's word most."""
    return spec.read_only, spec.safe_to_repeat
