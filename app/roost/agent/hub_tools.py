"""The tools that a hub has itself, beside those of workers: what needs no file of the user.

`read_back` gives any part of a text that was shortened, `researcher` hands a question to a sub-agent; memory's
are in `memory/tools`. A session's runner is all of them and the worker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from pydantic import JsonValue

from roost.agent.foreign import tool_set
from roost.agent.subagents import NAME as RESEARCHER
from roost.agent.subagents import Means, SubAgents
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.context.gate import Gate
from roost.ops.errors import RoostError

MOST_BYTES = 8192


def _schema(required: Sequence[str], **properties: str) -> dict[str, JsonValue]:
    known: dict[str, JsonValue] = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


READ_BACK = ToolSpec(
    name="read_back",
    description="Reads part of a text that was shortened, by its reference (blob:...): bytes from start on.",
    parameters=_schema(["reference"], reference="string", start="integer", length="integer"),
    permission=Permission.READ,
    safe_to_repeat=True,
)


class OwnTools(Protocol):
    """Tools of the hub that belong together."""

    def tools(self, request: str, *, with_others: bool) -> Sequence[ToolSpec]:
        """Return what can be called for a request; `with_others` says that there are a worker's tools, too."""
        ...

    async def run(self, call: ToolCall) -> str:
        """Run one of them, return what the model reads. Raises RoostError, OSError."""
        ...


class SessionRunner:
    """All tools of one session: the hub's own, and the worker's."""

    def __init__(self, worker: ToolRunner, gate: Gate, helpers: SubAgents, own: Sequence[OwnTools] = ()) -> None:
        self._worker = worker
        self._gate = gate
        self._helpers = helpers
        self._own = own
        self.request = ""
        """What the turn under way is about: without a worker, tools are there only for who asks for them."""
        self.means: Means | None = None
        """What sub-agents work with; without it there are none."""

    def tools(self) -> Sequence[ToolSpec]:
        """Return what can be called now."""
        worker = tool_set(self.request, self._worker.tools())
        taken = {spec.name for spec in worker}
        own = [spec for _, spec in self._owned(with_others=bool(worker))]
        if worker:
            own += [READ_BACK, *(self._helpers.tools(self._worker) if self.means else ())]
        return [*worker, *(spec for spec in own if spec.name not in taken)]

    def _owned(self, *, with_others: bool) -> list[tuple[OwnTools, ToolSpec]]:
        return [(own, spec) for own in self._own for spec in own.tools(self.request, with_others=with_others)]

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call here or at the worker."""
        if call.name == RESEARCHER and self.means:
            return await self._helpers.run(call, self.means)
        worker = {spec.name for spec in self._worker.tools()}
        owner = next((own for own, spec in self._owned(with_others=bool(worker)) if spec.name == call.name), None)
        if call.name in worker or (owner is None and call.name != READ_BACK.name):
            return await self._worker.run(call)
        try:
            text = await (owner.run(call) if owner else self._read_back(call))
        except (RoostError, OSError) as error:
            return ToolResult(id=call.id, outcome=Outcome.FAILED, text=str(error))
        return ToolResult(id=call.id, outcome=Outcome.OK, text=text)

    async def _read_back(self, call: ToolCall) -> str:
        given = call.arguments
        start, length = given.get("start"), given.get("length")
        first = start if isinstance(start, int) else 0
        most = min(length, MOST_BYTES) if isinstance(length, int) and length > 0 else MOST_BYTES
        return await asyncio.to_thread(self._gate.drill, str(given.get("reference")), first, most)
