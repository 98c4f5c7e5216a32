"""A hub with one scripted model, and tools that note what they were called with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from roost.agent.service import Agents, Asker
from roost.agent.sessions.records import EventBody, ToolResultBody
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec
from tests.unit.agent.loop import test_knowledge as scripted

ANNA = Asker("alice", "secret", "user")
TEXT: dict[str, JsonValue] = {
    "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False,
}  # fmt: skip
COMMAND: dict[str, JsonValue] = {
    "type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"],
    "additionalProperties": False,
}  # fmt: skip


def foreign(name: str = "mcp__ex__send", about: str = "Sends a text.", **more: bool) -> ToolSpec:
    """Return a tool of somebody else's server."""
    return ToolSpec(name=name, description=about, parameters=TEXT, permission=Permission.FOREIGN, **more)


SHELL = ToolSpec(name="shell", description="Runs a command.", parameters=COMMAND, permission=Permission.RUN)


class Hands:
    """A runner that does what it is asked, and remembers it."""

    def __init__(self, *specs: ToolSpec) -> None:
        self.specs = list(specs) or [foreign(), SHELL]
        self.calls: list[ToolCall] = []

    def tools(self) -> Sequence[ToolSpec]:
        return self.specs

    async def run(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        return ToolResult(id=call.id, outcome=Outcome.OK, text="It was sent.")


@asynccontextmanager
async def hub(folder: Path, hands: Hands, *calls: tuple[str, dict[str, JsonValue]]) -> AsyncIterator[Agents]:
    """Run a hub whose model calls these tools in each turn."""
    async with scripted.hub(folder) as (api, agents):
        agents._runner_of = lambda _owner, _workspace: hands
        wanted = calls or (("mcp__ex__send", {"text": "hi"}),)
        api.actions = [{"tool": tool, "arguments": arguments} for tool, arguments in wanted]
        yield agents


async def until(queue: asyncio.Queue[Any], kind: str) -> dict[str, Any]:
    """Return the next event of a type."""
    async with asyncio.timeout(20):
        while True:
            event = dict(await queue.get())
            if event["type"] == kind:
                return event


def events(agents: Agents, session: str, name: str) -> list[dict[str, Any]]:
    """Return the details of a conversation's recorded events of a name."""
    found = [record.body for record in agents.store.read("alice", session).records]
    return [dict(body.detail) for body in found if isinstance(body, EventBody) and body.name == name]


def outcomes(agents: Agents, session: str) -> list[tuple[Outcome, str]]:
    """Return what came of a conversation's calls."""
    found = [record.body for record in agents.store.read("alice", session).records]
    return [(body.result.outcome, body.result.text) for body in found if isinstance(body, ToolResultBody)]


def audited(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return what the audit log has."""
    lines = (folder / "audit/audit.jsonl").read_text().splitlines()
    return [(entry["action"], entry["detail"]) for entry in map(json.loads, lines)]
