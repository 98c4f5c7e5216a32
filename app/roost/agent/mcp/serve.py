"""Roost's own tools as an MCP server over standard input and output, under the rules that they have for the agent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from roost import __version__
from roost.agent.audit.log import AuditLog
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.agent.tools.workspaces import Named
from roost.ops.errors import RoostError

HARMLESS = frozenset({Permission.READ, Permission.NETWORK})
"""Permissions of tools that change nothing of the user's."""
ABOUT = (
    "Files, search, programs in a sandbox and pages, in the folders that the user named as workspaces of Roost; "
    "a model, the memory and the conversations of the user's key."
)
WORKSPACE = "workspace"
Context = ServerRequestContext[Any]


@dataclass
class Served:
    """What is served: a runner's tools, in `workspace` or one that a call names where there are several."""

    owner: str
    runner: ToolRunner
    named: Named
    placeless: frozenset[str]
    """Names of tools that work in no workspace."""
    audit: AuditLog
    workspace: str = ""
    session: str = field(default_factory=lambda: f"mcp-{uuid.uuid4().hex[:12]}")
    _running: set[asyncio.Task[ToolResult]] = field(default_factory=set)

    def tools(self) -> list[types.Tool]:
        """Return the tools as the protocol has them."""
        names = [one.name for one in self.named.of(self.owner)]
        choice = names if len(names) > 1 and not self.workspace else []
        return [
            types.Tool(
                name=spec.name, description=spec.description, annotations=hints(spec),
                input_schema=schema_of(spec, () if spec.name in self.placeless else choice),
            )
            for spec in self.runner.tools()
        ]  # fmt: skip

    async def call(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Run a tool to its end, on record before and after."""
        given = dict(arguments)
        workspace = None if name in self.placeless else given.pop(WORKSPACE, None) or self.workspace or None
        call = ToolCall(
            id=f"{self.session}-{uuid.uuid4().hex}", name=name, arguments=given, session=self.session,
            workspace=None if workspace is None else str(workspace),
        )  # fmt: skip
        # in a task of its own: what is cancelled is told so once, and comes to its end
        task = asyncio.create_task(self._recorded(call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise
        text = types.TextContent(type="text", text=result.text)
        return types.CallToolResult(content=[text], is_error=result.outcome is not Outcome.OK)

    async def end(self) -> None:
        """End what still runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _recorded(self, call: ToolCall) -> ToolResult:
        asked = {"call": call.id, "tool": call.name, "arguments": dict(call.arguments), "workspace": call.workspace}
        try:
            await asyncio.to_thread(self.audit.add, self.owner, "tool.call", asked, self.session)
        except (OSError, RoostError) as error:
            return ToolResult(id=call.id, outcome=Outcome.REFUSED, text=f"It cannot be put on record: {error}")
        result = await self.runner.run(call)
        came = {"call": call.id, "outcome": result.outcome.value, "changed": list(result.changed)}
        try:
            await asyncio.to_thread(self.audit.add, self.owner, "tool.result", came, self.session)
        except (OSError, RoostError) as error:  # it is done: who is told that it failed would do it again
            remark = f"[What came of it could not be put on record: {error}]"
            return result.model_copy(update={"text": f"{result.text}\n{remark}"})
        return result


def hints(spec: ToolSpec) -> types.ToolAnnotations:
    """Return what a tool does, as the protocol says it."""
    changes = spec.permission in {Permission.WRITE, Permission.RUN}
    return types.ToolAnnotations(
        read_only_hint=spec.permission in HARMLESS, destructive_hint=changes,
        idempotent_hint=spec.safe_to_repeat, open_world_hint=spec.permission is Permission.NETWORK,
    )  # fmt: skip


def schema_of(spec: ToolSpec, workspaces: Sequence[str]) -> dict[str, Any]:
    """Return the schema of a tool's arguments; where there are several workspaces one has to be named."""
    schema: dict[str, Any] = dict(spec.parameters)
    if not workspaces:
        return schema
    schema["properties"] = {**schema.get("properties", {}), WORKSPACE: {"type": "string", "enum": list(workspaces)}}
    schema["required"] = [*schema.get("required", []), WORKSPACE]
    return schema


def server_of(served: Served) -> Server[Any]:
    """Return the server."""

    async def listed(_context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=await asyncio.to_thread(served.tools))

    async def called(_context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await served.call(params.name, params.arguments or {})

    return Server("roost", version=__version__, instructions=ABOUT, on_list_tools=listed, on_call_tool=called)


async def serve_stdio(served: Served, began: Callable[[], None] = lambda: None) -> None:
    """Serve until the client closes our input."""
    server = server_of(served)
    try:
        async with stdio_server() as (heard, said):
            began()
            await server.run(heard, said, server.create_initialization_options())
    finally:
        await served.end()
