"""Runs calls on this machine: arguments checked, workspace found, time and output bounded, outcome recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from pydantic import ValidationError

from roost.agent.sandbox.parent import Bubblewrap, Sandbox
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec, sendable
from roost.agent.tools.base import AnyTool, Done
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.edit import EDIT
from roost.agent.tools.errors import CutOffError, RefusedError, ToolError
from roost.agent.tools.listing import LIST
from roost.agent.tools.project_map import map_tool
from roost.agent.tools.read import READ
from roost.agent.tools.record import OutcomeRecord
from roost.agent.tools.search import SEARCH
from roost.agent.tools.shell import shell_tool
from roost.agent.tools.undo import UNDO
from roost.agent.tools.undo_store import Place, UndoStore
from roost.agent.tools.web_fetch import fetch_tool
from roost.agent.tools.web_search import SearchServices, search_web_tool
from roost.agent.tools.workspaces import Named
from roost.agent.tools.write import WRITE
from roost.ops.validation import place, problem

log = structlog.get_logger(__name__)
HARMLESS = frozenset({Permission.READ, Permission.NETWORK})
"""A call with one of these that was ended has done nothing."""
NOT_ALLOWED = "{} is a tool of another's server, and the user did not allow this call."
NOTHING = "Nothing was done."
LOOK = "It may have been done: look before it is done again."


def standard_tools(
    sandbox: Sandbox | None = None, services: SearchServices | None = None, networks: Sequence[str] = ()
) -> list[AnyTool]:
    """Return this machine's tools; those that run programs only where there is a sandbox."""
    box = sandbox or Bubblewrap()
    tools: list[AnyTool] = [READ, LIST, SEARCH, WRITE, EDIT, UNDO]
    if not box.missing():
        tools += [shell_tool(box), map_tool(box)]
    return [*tools, fetch_tool(networks), search_web_tool(services or SearchServices())]


class LocalRunner:
    """A `ToolRunner` of this machine for one key. `folder` keeps outcomes and what undo needs.

    `more` gives tools that come and go; one with the name of another of ours is not there.
    """

    def __init__(
        self,
        owner: str,
        workspaces: Named,
        folder: Path,
        tools: Sequence[AnyTool] | None = None,
        more: Callable[[], Sequence[AnyTool]] = tuple,
    ) -> None:
        self._owner = owner
        self._workspaces = workspaces
        self._undo = UndoStore(folder / "undo")
        self._record = OutcomeRecord(folder / "outcomes.jsonl")
        self._own = {tool.spec.name: tool for tool in (standard_tools() if tools is None else tools)}
        self._more = more
        self._changing: dict[Path, asyncio.Lock] = {}
        self._running: dict[str, asyncio.Future[ToolResult]] = {}

    def tools(self) -> Sequence[ToolSpec]:
        """Return what can be called."""
        return [tool.spec for tool in self._known().values()]

    def _known(self) -> dict[str, AnyTool]:
        return {**{tool.spec.name: tool for tool in self._more()}, **self._own}

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call, or answer from the record; a call that is under way is waited for and not begun again."""
        if known := self._record.known(call.id):
            if call.id in self._running:
                return await asyncio.shield(self._running[call.id])
            return known
        try:
            self._record.begin(call.id)
        except OSError as error:
            text = f"The worker cannot note the call on its disk, so nothing was done: {error.strerror or error}."
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=text)
        waiting: asyncio.Future[ToolResult] = asyncio.get_running_loop().create_future()
        self._running[call.id] = waiting
        result = ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=f"{call.name} was ended. {LOOK}")
        start = time.monotonic()
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        try:
            result = await self._result(call)
        finally:
            result = result.model_copy(update={"seconds": round(time.monotonic() - start, 3)})
            self._end(result)
            del self._running[call.id]
            waiting.set_result(result)
        if task and task.cancelling() > cancels:
            raise asyncio.CancelledError  # whoever cancelled waits for that; what came of the call is in the record
        return result

    async def recall(self, call: ToolCall) -> ToolResult | None:
        """Return what came of a call, once it has ended if it runs.

        UNKNOWN where it was begun and its end is not recorded, None if never begun.
        """
        if call.id in self._running:
            return await asyncio.shield(self._running[call.id])
        return self._record.known(call.id)

    def _end(self, result: ToolResult) -> None:
        try:
            self._record.end(result)
        except OSError as error:  # known to this process; the next one says that it may have been done
            log.warning("outcome_not_noted", call=result.id, reason=str(error))

    async def _result(self, call: ToolCall) -> ToolResult:
        tool = self._known().get(call.name)
        if tool is None:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=f"There is no tool {call.name}.")
        try:
            given = tool.arguments.model_validate(call.arguments)
        except ValidationError as error:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=_problems(error))
        if tool.spec.permission is Permission.FOREIGN and not (tool.spec.read_only or call.allowed):
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=f"{NOT_ALLOWED.format(call.name)} {NOTHING}")
        try:
            async with asyncio.timeout(tool.spec.timeout_s):
                done = await self._done(tool, given, call)
        except (asyncio.CancelledError, TimeoutError) as error:
            return _ended(call, tool.spec, cancelled=isinstance(error, asyncio.CancelledError))
        except (RefusedError, ToolError, OSError) as error:
            return _failed(call, error, tool.spec)
        except Exception as error:  # a tool's own fault must not end the turn: told, and logged whole
            log.exception("tool_failed", tool=call.name)
            return _bounded(call, Outcome.FAILED, Done(f"{call.name} failed: {type(error).__name__}."), tool.spec)
        return _bounded(call, Outcome.OK, done, tool.spec)

    async def _done(self, tool: AnyTool, given: object, call: ToolCall) -> Done:
        if not tool.needs_place:
            return await tool.act(given, None)
        files = self._files(call.workspace)
        if files is None:
            return await tool.act(given, None)
        place = Place(files.root, files, self._undo, call.id, call.session, allowed=call.allowed)
        try:
            if tool.spec.permission in HARMLESS:
                return await tool.act(given, place)
            async with self._alone(files.root):
                return await tool.act(given, place)
        finally:
            files.close()

    @asynccontextmanager
    async def _alone(self, root: Path) -> AsyncIterator[None]:
        """Let one call at a time change a workspace: what changes while it runs is taken for its work.

        Raises:
            RefusedError: it was ended while it waited for another.
        """
        lock = self._changing.setdefault(root, asyncio.Lock())
        try:
            await lock.acquire()
        except asyncio.CancelledError:
            raise RefusedError("It was ended while another call changed this workspace: nothing was done.") from None
        try:
            yield
        finally:
            lock.release()

    def _files(self, name: str | None) -> Beneath | None:
        """Open a workspace of this key: the one named, else the only one."""
        mine = self._workspaces.of(self._owner)
        if name is None and len(mine) > 1:
            known = ", ".join(w.name for w in mine)
            raise RefusedError(f"No workspace is chosen: the user chooses one of {known} with /workspace NAME.")
        if name is None:
            return _opened(mine[0].path) if mine else None
        found = next((w for w in mine if w.name == name), None)
        if found is None:
            known = ", ".join(w.name for w in mine) or "none"
            raise RefusedError(f"There is no workspace {name}; there is: {known}.")
        return _opened(found.path)


def _opened(folder: Path) -> Beneath:
    """Open a workspace, if it still is what was named: a link in its place could lead anywhere.

    Raises:
        RefusedError: it is not.
    """
    if folder.resolve() != folder:
        raise RefusedError(f"{folder} is not the folder any more that was named as a workspace.")
    return Beneath(folder)


def _ended(call: ToolCall, spec: ToolSpec, *, cancelled: bool) -> ToolResult:
    """Return what is known of a call that did not come to its end."""
    text = "Cancelled." if cancelled else f"{call.name} took more than {spec.timeout_s:.0f} s and was ended."
    if spec.permission in HARMLESS:
        return ToolResult(id=call.id, outcome=Outcome.CANCELLED if cancelled else Outcome.TIMED_OUT, text=text)
    return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text=f"{text} {LOOK}")


def _failed(call: ToolCall, error: RefusedError | ToolError | OSError, spec: ToolSpec) -> ToolResult:
    """Return what a tool's exception says."""
    match error:
        case RefusedError():
            return _bounded(call, Outcome.REFUSED, Done(str(error)), spec)
        case CutOffError():
            return _bounded(call, Outcome.UNKNOWN, Done(f"{error}\n{LOOK}", error.changed), spec)
        case ToolError():
            return _bounded(call, Outcome.FAILED, Done(str(error), error.changed), spec)
        case OSError():
            return _bounded(call, Outcome.FAILED, Done(f"{call.name}: {error.strerror or error}."), spec)


def _bounded(call: ToolCall, outcome: Outcome, done: Done, spec: ToolSpec) -> ToolResult:
    """Return a result within the tool's output limit; what was cut is said."""
    result = ToolResult(id=call.id, outcome=outcome, text=done.text, changed=done.changed)
    return sendable(result, spec.output_limit_bytes)


def _problems(error: ValidationError) -> str:
    parts = [f"{place(e) or 'arguments'}: {problem(e)}" for e in error.errors()]
    return f"The arguments do not fit: {'; '.join(parts)}."
