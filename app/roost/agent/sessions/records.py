"""What a conversation is made of: records, one a line, each with its number and its time. Plain data.

A reader skips kinds that it does not know, so that a conversation written by a later release can still be read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from roost.agent.tool import ToolCall, ToolResult

VERSION = 1
TITLE_CHARACTERS = 80


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Begin(_Body):
    """The first record of a file: whose conversation it is. Moving a file does not give it to somebody else."""

    kind: Literal["begin"] = "begin"
    version: int = VERSION
    session: str
    owner: str


class MessageBody(_Body):
    """What somebody said. Which role of the trio said it stands in `speaker`."""

    kind: Literal["message"] = "message"
    role: Literal["user", "assistant", "system"]
    text: str
    speaker: str = ""
    model: str = ""
    reasoning: str = ""
    """What the model thought aloud: shown on request, never sent back to a model."""
    turn: str = ""


class ToolCallBody(_Body):
    """The intent to call a tool: on disk before the call is made."""

    kind: Literal["tool_call"] = "tool_call"
    call: ToolCall
    turn: str = ""


class ToolResultBody(_Body):
    """The outcome of a call."""

    kind: Literal["tool_result"] = "tool_result"
    result: ToolResult
    turn: str = ""


class EventBody(_Body):
    """Something that happened to the conversation: a compaction, a changed mode, a guard that stepped in."""

    kind: Literal["event"] = "event"
    name: str
    detail: dict[str, JsonValue] = {}
    turn: str = ""


class MetricsBody(_Body):
    """What a turn took: see the fields of the loop's own measurement."""

    kind: Literal["metrics"] = "metrics"
    values: dict[str, JsonValue]
    turn: str = ""


class TitleBody(_Body):
    """A title, from the user or made of the first message; the last one holds."""

    kind: Literal["title"] = "title"
    title: str


Body = Annotated[
    Begin | MessageBody | ToolCallBody | ToolResultBody | EventBody | MetricsBody | TitleBody,
    Field(discriminator="kind"),
]
BODY: TypeAdapter[Body] = TypeAdapter(Body)
KINDS = frozenset({"begin", "message", "tool_call", "tool_result", "event", "metrics", "title"})


class Record(BaseModel):
    """One line of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seq: int = Field(ge=1)
    """Number in the conversation, from 1 without gaps; `begin` is 1."""
    at: AwareDatetime
    body: Body


class UnreadableError(ValueError):
    """A line that is no record of a kind known here."""


def line_of(record: Record) -> bytes:
    """Return the record as one line with its end."""
    return record.model_dump_json().encode() + b"\n"


def parse(line: bytes) -> Record:
    """Return the record of a line.

    Raises:
        UnreadableError: the line is damaged, or of a kind that is not known here.
    """
    try:
        return Record.model_validate_json(line)
    except ValueError as error:
        raise UnreadableError(str(error)) from None


def now() -> datetime:
    """Return the time for a record: UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def title_of(text: str) -> str:
    """Return a title made of the first line of a message."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if len(first) <= TITLE_CHARACTERS else first[: TITLE_CHARACTERS - 1].rstrip() + "…"
