"""Scripted models and tools for the agent: they say what a test wants them to, faults included."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from roost.agent.delegation import Candidate
from roost.agent.models import Ask, Hear, Reply, Usage
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec
from roost.ops.errors import RoostError

Answer = str | Exception | Reply
Says = Callable[[Ask], Answer]

PATH_SCHEMA: dict[str, JsonValue] = {
    "type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False
}  # fmt: skip
WRITE_SCHEMA: dict[str, JsonValue] = {
    "type": "object", "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["path", "content"], "additionalProperties": False,
}  # fmt: skip


def who(ask: Ask) -> str:
    """Say which role a question is for: router, thought, call or main."""
    if ask.schema is not None:
        return "router" if "actions" in json.dumps(ask.schema) else "call"
    return "thought" if any("one call at a time" in message.text for message in ask.messages[:2]) else "main"


@dataclass
class ScriptedModels:
    """One model that plays all roles; each role's answers come from a function, or one after the other."""

    router: Says | list[Answer] = field(default_factory=list)
    thought: Says | list[Answer] = field(default_factory=list)
    call: Says | list[Answer] = field(default_factory=list)
    main: Says | list[Answer] = field(default_factory=list)
    asks: list[tuple[str, Ask]] = field(default_factory=list)

    async def candidates(self) -> list[Candidate]:
        return [Candidate("scripted", context=8192)]

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        role = who(ask)
        self.asks.append((role, ask))
        script: Says | list[Answer] = getattr(self, role)
        defaults = {"router": '{"actions": []}', "thought": "I look.", "call": '{"done": true}', "main": "Done."}
        said = script(ask) if callable(script) else (script.pop(0) if script else defaults[role])
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Reply):
            return said
        heard = ""
        for piece in [said[start : start + 7] for start in range(0, len(said), 7)]:
            heard += piece
            if hear and not await hear(piece, False):
                return Reply(heard, finish="ended", usage=Usage(10, 5, 2))
        return Reply(said, finish="stop", model="scripted", usage=Usage(10, 5, 2))


class Files:
    """Tools over files in memory: read, list, write; and one that always fails, and one that is never allowed."""

    def __init__(self, files: dict[str, str] | None = None) -> None:
        self.files = dict(files or {})
        self.calls: list[ToolCall] = []

    def tools(self) -> Sequence[ToolSpec]:
        kinds: dict[str, tuple[str, dict[str, JsonValue], Permission]] = {
            "read": ("Reads a file.", PATH_SCHEMA, Permission.READ),
            "list": ("Lists files.", {"type": "object", "properties": {}}, Permission.READ),
            "write": ("Writes a file.", WRITE_SCHEMA, Permission.WRITE),
            "forbidden": ("Is not allowed.", {"type": "object", "properties": {}}, Permission.RUN),
        }  # fmt: skip
        return [
            ToolSpec(name=name, description=about, parameters=schema, permission=permission)
            for name, (about, schema, permission) in kinds.items()
        ]

    async def run(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        path = str(call.arguments.get("path", ""))
        if call.name == "forbidden":
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text="That is not allowed.")
        if call.name == "list":
            return ToolResult(id=call.id, outcome=Outcome.OK, text="\n".join(sorted(self.files)))
        if call.name == "write":
            self.files[path] = str(call.arguments["content"])
            return ToolResult(id=call.id, outcome=Outcome.OK, text=f"{path} is written", changed=(path,))
        if path not in self.files:
            return ToolResult(id=call.id, outcome=Outcome.FAILED, text=f"There is no file {path}.")
        return ToolResult(id=call.id, outcome=Outcome.OK, text=self.files[path])


def absent() -> RoostError:
    """Return what asking a model raises that is not there."""
    return RoostError("No model answers: it is not there", fix="See roost status.")
