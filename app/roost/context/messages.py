"""A message as models are shown it, and its way to and from the OpenAI-compatible API. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

Wire = dict[str, Any]
"""A message as JSON: https://platform.openai.com/docs/api-reference/chat/create, `messages`."""


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Call(BaseModel):
    """A tool call that a model asked for. `arguments` is the JSON text as it stands in the history."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    arguments: str = "{}"


class Message(BaseModel):
    """One message. `calls` only for an assistant; `call_id` says which call a tool's message answers."""

    model_config = ConfigDict(frozen=True)

    role: Role
    text: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""

    def wire(self) -> Wire:
        """Return it as the API has it."""
        message: Wire = {"role": self.role.value, "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.calls
            ]
        if self.call_id:
            message["tool_call_id"] = self.call_id
        return message

    @property
    def size(self) -> int:
        """Return how many bytes of UTF-8 it holds; what cannot be written as such counts as its replacement."""
        called = (part for call in self.calls for part in (call.id, call.name, call.arguments))
        parts = [self.text, self.call_id, *called]
        return sum(len(part.encode("utf-8", "replace")) for part in parts)


def system(text: str) -> Message:
    """Return an instruction."""
    return Message(role=Role.SYSTEM, text=text)


def user(text: str) -> Message:
    """Return what the user said."""
    return Message(role=Role.USER, text=text)


def assistant(text: str, *calls: Call) -> Message:
    """Return what a model answered."""
    return Message(role=Role.ASSISTANT, text=text, calls=calls)


def tool(call_id: str, text: str) -> Message:
    """Return what a tool answered."""
    return Message(role=Role.TOOL, text=text, call_id=call_id)


def to_wire(messages: Sequence[Message]) -> list[Wire]:
    """Return messages as the API has them."""
    return [message.wire() for message in messages]
