"""Our MCP server: what is told of a call whose outcome cannot be put on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mcp_types as types
import pytest

from roost.agent.audit.chain import Head
from roost.agent.audit.log import AuditLog
from roost.agent.mcp.serve import Served
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolSpec
from roost.agent.tools.workspaces import Workspaces
from roost.gateway.telemetry import Redactor
from roost.ops.errors import RoostError


class Runner:
    """Counts what it runs."""

    def __init__(self) -> None:
        self.ran = 0

    def tools(self) -> Sequence[ToolSpec]:
        return ()

    async def run(self, call: ToolCall) -> ToolResult:
        self.ran += 1
        return ToolResult(id=call.id, outcome=Outcome.OK, text="written")


class FullDisk(AuditLog):
    """A record that takes a number of entries."""

    def __init__(self, folder: Path, takes: int) -> None:
        super().__init__(folder, Redactor([]))
        self.takes = takes

    def add(self, owner: str, action: str, detail: Mapping[str, object] | None = None, session: str = "") -> Head:
        self.takes -= 1
        if self.takes < 0:
            raise RoostError("The disk is full.", fix="Make room.")
        return super().add(owner, action, detail, session)


@pytest.mark.parametrize(("takes", "ran", "error", "text"), [
    (2, 1, False, "written"), (1, 1, False, "written\n[What came of it could not be put on record: "),
    (0, 0, True, "It cannot be put on record: "),
])  # fmt: skip
async def test_what_was_done_is_told_so_and_what_cannot_be_put_on_record_is_not_begun(
    tmp_path: Path, takes: int, ran: int, error: bool, text: str
) -> None:
    runner = Runner()
    named = Workspaces(tmp_path / "workspaces.json")
    served = Served("anna", runner, named, frozenset({"t"}), FullDisk(tmp_path / "audit", takes))
    result = await served.call("t", {})
    assert (runner.ran, result.is_error) == (ran, error)
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text.startswith(text)
