"""A session's records as turns again."""

from __future__ import annotations

from roost.agent.history import turns_of
from roost.agent.sessions.records import Body, MessageBody, Record, ToolCallBody, ToolResultBody, now
from roost.agent.tool import Outcome, ToolCall, ToolResult


def test_turns_that_were_compacted_come_back_with_calls_and_results() -> None:
    bodies: list[Body] = [
        MessageBody(role="user", text="Read it"),
        ToolCallBody(call=ToolCall(id="c1", name="read", arguments={"path": "a"}, session="s")),
        ToolResultBody(result=ToolResult(id="c1", outcome=Outcome.OK, text="alpha")),
        MessageBody(role="assistant", text="It says alpha."),
    ]
    records = [Record(seq=number, at=now(), body=body) for number, body in enumerate(bodies, 1)]
    (turn,) = turns_of(records)
    assert [message.text for message in turn.messages] == ["Read it", "", "alpha", "It says alpha."]
