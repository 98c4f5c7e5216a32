"""What goes over the channel, and its bounds: JSON over HTTP, each request with the key of the worker's owner.

    POST   /roost/v1/workers                       Announced  -> Lease      come, or come again
    PUT    /roost/v1/workers/LEASE                 Announced  -> 204        what is offered has changed
    GET    /roost/v1/workers/LEASE/requests?after= (waits)    -> Requests   what is to be done; a heartbeat, too
    POST   /roost/v1/workers/LEASE/results         ToolResult -> Accepted   what came of a call
    DELETE /roost/v1/workers/LEASE                            -> 204        leave

A request is given out again until the worker asks for what comes `after` it, so a lost answer loses none; the same call
is not run twice, because the runner knows its id. A result counts once: `accepted` is false for every further one.

Versions. `PROTOCOL` is the number of all this. Both sides state theirs in the header `Roost-Protocol`: the worker with
all that it asks, programs of the key, too; the hub with a lease, with tools and with what came of a call. With another
number neither side goes on, and says which is to be brought up. Within one number either side may be of another
release: fields that it does not know are ignored, so a field may come that says more by itself than leaving it out
did (its default is what there was before, see `sent`). What may not be ignored is another protocol: count up.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from roost.agent.tool import ToolCall, ToolSpec

PROTOCOL = 1
PROTOCOL_HEADER = "Roost-Protocol"
STATED = {PROTOCOL_HEADER: str(PROTOCOL)}
FIRST_PROTOCOL = "1"
"""What a worker or a hub speaks that states none: all did before it was stated."""
HUB_PATH = "/roost/v1/hub"
"""Where a hub says which it is; see `agent/identity`, which a worker does not need."""
HUB_ID_DIGITS = 32
PATH = "/roost/v1/workers"
TOOLS_PATH, CALLS_PATH = f"{PATH}/tools", f"{PATH}/calls"
"""For programs of the key that call by themselves; see `channel/calls`."""
POLL_S = 20.0
"""How long a question for requests waits for one."""
GONE_S = 15.0
"""A worker that has not asked for so long is gone: longer than it takes to notice a broken connection and come back."""
ANSWER_S = 15.0
"""How long a result may take beyond the time limit of its tool."""
MOST_TOOL_S = 600.0
"""The longest time limit that a tool may say it has."""
MOST_ANNOUNCED_BYTES = 256 << 10
MOST_WORKERS = 256
MOST_WORKERS_OF_KEY = 8
MOST_PENDING = 16
"""Calls at a worker at a time."""
MOST_RESULT_BYTES = 256_000
"""Of a result's text, whatever its tool says of itself."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Wire(BaseModel):
    """A document of the channel."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def is_ours(stated: str | None, ours: int = PROTOCOL) -> bool:
    """Say whether the other side speaks this protocol, by what it states, if it states any."""
    return (stated or FIRST_PROTOCOL) == str(ours)


def sent(document: BaseModel) -> str:
    """Return a document as it goes over the channel: what a field says by itself is left out.

    So the other side may be of the version before, which knows no field that came since, as long as nothing new is
    asked of it. A default therefore stays what it is.
    """
    return document.model_dump_json(exclude_defaults=True)


class Folder(Wire):
    """A workspace as it is announced. `path` is for people."""

    name: Name
    path: str = Field(max_length=4096)


class Announced(Wire):
    """What a worker offers. `id` stays over its restarts."""

    id: Name
    host: Name
    version: str = Field(max_length=64)
    workspaces: tuple[Folder, ...] = Field(max_length=256)
    tools: tuple[ToolSpec, ...] = Field(max_length=128)

    @field_validator("tools")
    @classmethod
    def _times_are_bounded(cls, tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
        for spec in tools:
            if not 0 < spec.timeout_s <= MOST_TOOL_S:
                raise ValueError(f"{spec.name}: a tool has at most {MOST_TOOL_S:.0f} s")
        return tools


def recall_id(call: str) -> str:
    """Return the id under which a worker tells what came of a call."""
    return f"recall {call}"


class Lease(Wire):
    """The name under which a worker that came is known until it leaves, or comes again."""

    lease: str
    owner: str


class Request(Wire):
    """Something to do: a call to run, one to tell the outcome of, or the id of one to end. `number` grows."""

    number: int
    call: ToolCall | None = None
    recall: ToolCall | None = None
    """Answered by a result under `recall_id`: what came of the call, without running it."""
    cancel: str = ""


class Requests(Wire):
    """What a worker has to do."""

    requests: tuple[Request, ...] = ()


class Accepted(Wire):
    """Whether somebody waited for the result."""

    accepted: bool
