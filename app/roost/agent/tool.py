"""What a tool is to the agent, and what comes of calling one: plain data, shared by loop, worker and audit log.

The loop runs in the hub and never touches a file of the user: it hands a `ToolCall` to a `ToolRunner` and
gets a `ToolResult`. The runner of the hub is the channel to a `roost worker`; the worker's is the sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, JsonValue

TIMEOUT_S = 60.0
OUTPUT_LIMIT_BYTES = 64_000
MOST_CHANGED = 500
MOST_CHANGED_BYTES = 32_000
"""Of the names of files that a result says are changed."""


class Permission(StrEnum):
    """What a call may do, from harmless to grave: what the user is asked and what a sandbox opens follow."""

    READ = "read"
    """Reads inside a workspace."""
    WRITE = "write"
    """Changes files inside a workspace; can be undone."""
    RUN = "run"
    """Runs a program inside the sandbox."""
    NETWORK = "network"
    """Reaches an address outside this machine."""
    MEMORY = "memory"
    """Reads or changes what the hub remembers for this key."""
    FOREIGN = "foreign"
    """A tool of somebody else's server (MCP): what it does is not known, so it counts as one that changes things.
    See `read_only`."""


class Outcome(StrEnum):
    """How a call ended."""

    OK = "ok"
    FAILED = "failed"
    """The tool ran and says that it did not work: the model reads why."""
    REFUSED = "refused"
    """A guard or a permission kept it from running: nothing was done."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """The channel or the process was lost after the call: it may have been done. Never repeated blindly."""


class ToolSpec(BaseModel):
    """A tool as the model, the guards and the runner see it."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # goes over the channel: see `channel/wire`

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    description: str
    """One or two sentences for the model."""
    parameters: dict[str, JsonValue]
    """JSON Schema of the arguments: an object without additional properties."""
    permission: Permission
    timeout_s: float = TIMEOUT_S
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES
    safe_to_repeat: bool = False
    """Whether a call whose outcome is unknown may be made again without looking.

    A foreign tool's own word for it counts only where the user allowed the tool.
    """
    read_only: bool = False
    """Of a tool that is not ours: whether it says of itself that it changes nothing, and its server has no network."""


class ToolCall(BaseModel):
    """One call, with the identity under which its intent and its outcome are recorded."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # goes over the channel: see `channel/wire`

    id: str
    """Unique; a runner that is given the same id again answers with the recorded result instead of running."""
    name: str
    arguments: dict[str, JsonValue]
    session: str
    workspace: str | None = None
    """Name of the workspace it works in; None for tools without files."""
    allowed: bool = False
    """Whether the user was asked about this very call and allowed it; see `permission/policy`. No model says so."""


class ToolResult(BaseModel):
    """What came of a call."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # goes over the channel: see `channel/wire`

    id: str
    outcome: Outcome
    text: str
    """What the model reads: UTF-8, at most the tool's `output_limit_bytes`."""
    full_text_ref: str | None = None
    """Where the whole output lies if `text` is shortened (a reference of the content gate)."""
    seconds: float = 0.0
    changed: tuple[str, ...] = ()
    """Paths, relative to the workspace, that the call changed."""


def sendable(result: ToolResult, most_text_bytes: int) -> ToolResult:
    """Return a result as it is sent and recorded: UTF-8, bounded; what was cut is said in its text.

    A file's name that is not UTF-8 is written with escapes (`caf\\udce9`).
    """
    names: list[str] = []
    left = MOST_CHANGED_BYTES
    for name in map(_utf_8, result.changed[:MOST_CHANGED]):
        left -= len(name.encode())
        if left < 0:
            break
        names.append(name)
    more = len(result.changed) - len(names)
    notes = f"\n({more} more files were changed.)" if more else ""
    text = _utf_8(result.text)
    data = text.encode()
    if len(data) + len(notes) > most_text_bytes:
        notes = f"\n(cut: {len(data):,} bytes in all; ask for less at a time){notes}"
        text = data[: max(0, most_text_bytes - len(notes))].decode(errors="ignore")
    return result.model_copy(update={"text": text + notes, "changed": tuple(names)})


def _utf_8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


class ToolRunner(Protocol):
    """Whoever runs tools."""

    def tools(self) -> Sequence[ToolSpec]:
        """Say which tools can be called now."""
        ...

    async def run(self, call: ToolCall) -> ToolResult:
        """Run one call to its end. Never raises for what the tool did; cancelling the task cancels the call."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A runner that can tell later what came of a call."""

    async def recall(self, call: ToolCall) -> ToolResult | None:
        """Return the outcome of a call, UNKNOWN where it was begun and its end is not recorded, None if never begun.

        Raises:
            RoostError: it cannot be asked now.
        """
        ...
