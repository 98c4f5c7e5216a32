"""A session's records as the conversation that models are shown, to go on with it after a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress

from roost.agent.sessions.records import EventBody, MessageBody, Record, ToolCallBody, ToolResultBody
from roost.agent.sessions.store import SessionStore
from roost.agent.tool import Outcome, ToolCall, ToolResult
from roost.context.conversation import Conversation, Turn
from roost.context.events import ContextEvent
from roost.context.keeper import replayed
from roost.context.messages import Call, Message, assistant, tool, user

CONTEXT = "context."


def call_messages(call: ToolCall, result: ToolResult) -> tuple[Message, Message]:
    """Return a call and its result as they stand in a conversation."""
    said = result.text if result.outcome == Outcome.OK else f"[{result.outcome}] {result.text}"
    wire = Call(id=call.id, name=call.name, arguments=json.dumps(call.arguments, ensure_ascii=False))
    return assistant("", wire), tool(call.id, said)


def turns_of(records: Iterable[Record]) -> list[Turn]:
    """Return all turns as they were said, whatever was compacted since."""
    talk = Conversation()
    calls: dict[str, ToolCall] = {}
    for record in records:
        talk = _with(talk, record, calls)
    return list(talk.turns)


def conversation_of(records: Sequence[Record]) -> Conversation:
    """Return the conversation as it was when its last record was written."""
    talk = Conversation()
    calls: dict[str, ToolCall] = {}
    for record in records:
        body = record.body
        if isinstance(body, EventBody) and body.name.startswith(CONTEXT):
            with suppress(ValueError, KeyError):  # of a later release: its turns are still there
                talk = replayed(talk, ContextEvent.model_validate(body.detail))
        else:
            talk = _with(talk, record, calls)
    return talk


def _with(talk: Conversation, record: Record, calls: dict[str, ToolCall]) -> Conversation:
    body = record.body
    if isinstance(body, MessageBody) and body.role == "user":
        return talk.begin(user(body.text))
    if not talk.turns:
        return talk
    if isinstance(body, MessageBody) and body.role == "assistant":
        return talk.go_on(assistant(body.text))
    if isinstance(body, ToolCallBody):
        calls[body.call.id] = body.call
    elif isinstance(body, ToolResultBody) and (call := calls.pop(body.result.id, None)):
        return talk.go_on(*call_messages(call, body.result))
    return talk


class SessionArchive:
    """Turns that were compacted, whole again from the session's file."""

    def __init__(self, store: SessionStore, owner: str, session: str) -> None:
        self._store = store
        self._owner = owner
        self._session = session

    async def turns(self, numbers: Sequence[int]) -> Sequence[Turn]:
        """Return those of the turns that there are."""
        wanted = set(numbers)
        return await asyncio.to_thread(lambda: [turn for turn in self._all() if turn.number in wanted])

    def _all(self) -> list[Turn]:
        return turns_of(self._store.read(self._owner, self._session).records)
