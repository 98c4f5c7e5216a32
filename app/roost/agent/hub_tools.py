"""The tools that a hub has itself, beside those of workers: what needs no file of the user.

`read_back` gives any part of a text that was shortened, `recall` searches what was said in earlier conversations, and
`researcher` hands a question to a sub-agent. A session's runner is all of them and the worker's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from pydantic import JsonValue

from roost.agent.sessions.store import SessionStore
from roost.agent.subagents import NAME as RESEARCHER
from roost.agent.subagents import Means, SubAgents
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.context.gate import Gate
from roost.ops.errors import RoostError

MOST_BYTES = 8192
MOST_HITS = 10
EARLIER = re.compile(
    r"\b(?:earlier|last time|yesterday|before|recall|remember|we (?:talked|spoke|said|discussed))\b", re.IGNORECASE
)


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
RECALL = ToolSpec(
    name="recall",
    description="Searches what was said in earlier conversations.",
    parameters=_schema(["words"], words="string"),
    permission=Permission.MEMORY,
    safe_to_repeat=True,
)


class SessionRunner:
    """All tools of one session: the hub's own, and the worker's."""

    def __init__(self, worker: ToolRunner, gate: Gate, store: SessionStore, owner: str, helpers: SubAgents) -> None:
        self._worker = worker
        self._gate = gate
        self._store = store
        self._owner = owner
        self._helpers = helpers
        self.request = ""
        """What the turn under way is about: without a worker, tools are there only for who asks for them."""
        self.means: Means | None = None
        """What sub-agents work with; without it there are none."""

    def tools(self) -> Sequence[ToolSpec]:
        """Return what can be called now."""
        worker = list(self._worker.tools())
        taken = {spec.name for spec in worker}
        own = [RECALL] if worker or EARLIER.search(self.request) else []
        if worker:
            own += [READ_BACK, *(self._helpers.tools(self._worker) if self.means else ())]
        return [*worker, *(spec for spec in own if spec.name not in taken)]

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call here or at the worker."""
        if call.name == RESEARCHER and self.means:
            return await self._helpers.run(call, self.means)
        own: dict[str, Callable[[ToolCall], Awaitable[str]]] = {
            READ_BACK.name: self._read_back, RECALL.name: self._recall,
        }  # fmt: skip
        if call.name not in own or call.name in {spec.name for spec in self._worker.tools()}:
            return await self._worker.run(call)
        try:
            return ToolResult(id=call.id, outcome=Outcome.OK, text=await own[call.name](call))
        except (RoostError, OSError) as error:
            return ToolResult(id=call.id, outcome=Outcome.FAILED, text=str(error))

    async def _read_back(self, call: ToolCall) -> str:
        given = call.arguments
        start, length = given.get("start"), given.get("length")
        first = start if isinstance(start, int) else 0
        most = min(length, MOST_BYTES) if isinstance(length, int) and length > 0 else MOST_BYTES
        return await asyncio.to_thread(self._gate.drill, str(given.get("reference")), first, most)

    async def _recall(self, call: ToolCall) -> str:
        words = str(call.arguments.get("words"))
        hits = await asyncio.to_thread(self._store.search, self._owner, words, MOST_HITS)
        lines = [f"{hit.title or hit.session} ({hit.role}): {' '.join(hit.snippet.split())}" for hit in hits]
        return "\n".join(lines) or "Nothing was said about it."
