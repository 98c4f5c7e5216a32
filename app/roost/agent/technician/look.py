"""Looks whether an interrupted call was made, where a file shows it: nothing is changed by looking."""

from __future__ import annotations

import asyncio

from roost.agent.technician.technician import Finding, Inspect
from roost.agent.tool import ToolCall
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.errors import ToolError
from roost.agent.tools.workspaces import Named


def looker(workspaces: Named, owner: str) -> Inspect:
    """Return what looks into an owner's workspaces."""

    async def look(call: ToolCall) -> Finding:
        return await asyncio.to_thread(_look, call)

    def _look(call: ToolCall) -> Finding:
        folder = next((one.path for one in workspaces.of(owner) if one.name == call.workspace), None)
        if call.name != "edit" or folder is None:
            return Finding.UNCLEAR
        try:
            files = Beneath(folder)
            try:
                path = files.relative(str(call.arguments.get("path")))
                text = files.read(path).decode()
            finally:
                files.close()
        except (ToolError, OSError, UnicodeDecodeError):
            return Finding.UNCLEAR
        return edit_shows(text, str(call.arguments.get("search") or ""), str(call.arguments.get("replace") or ""))

    return look


def edit_shows(text: str, search: str, replace: str) -> Finding:
    """Say what a file says of an edit: one of the two texts is there and the other is not, or nobody can tell."""
    if not search or search in replace or (replace and replace in search):
        return Finding.UNCLEAR
    before, after = search in text, bool(replace) and replace in text
    if after and not before:
        return Finding.MADE
    return Finding.NOT_MADE if before and not after and replace else Finding.UNCLEAR
