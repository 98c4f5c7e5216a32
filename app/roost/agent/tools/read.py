"""`read`: a file's text, whole or some of its lines, with their numbers' range."""

from __future__ import annotations

from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.errors import ToolError
from roost.agent.tools.threads import reading
from roost.agent.tools.undo_store import Place


class ReadArguments(Arguments):
    """What to read."""

    path: str = Field(description="Path in the workspace.")
    first_line: int = Field(default=1, ge=1)
    lines: int | None = Field(default=None, ge=1, description="How many lines; all if left out.")


def text_of(data: bytes, path: str) -> str:
    """Return bytes as text.

    Raises:
        ToolError: they are no text.
    """
    if b"\0" in data[:8192]:
        raise ToolError(f"{path} is no text: {len(data):,} bytes of something else.")
    return data.decode(errors="replace")


async def _read(given: ReadArguments, place: Place | None) -> Done:
    files = in_place(place).files
    text = text_of(await reading(files, lambda: files.read(given.path)), given.path)
    if given.first_line == 1 and given.lines is None:
        return Done(text)
    lines = text.splitlines(keepends=True)
    end = len(lines) if given.lines is None else given.first_line - 1 + given.lines
    part = lines[given.first_line - 1 : end]
    if not part:
        raise ToolError(f"{given.path} has {len(lines)} lines.")
    return Done(f"(lines {given.first_line} to {given.first_line + len(part) - 1} of {len(lines)})\n{''.join(part)}")


READ = Tool(
    spec_of("read", "Read a text file, or some of its lines.", ReadArguments, Permission.READ, safe_to_repeat=True),
    ReadArguments, _read,
)  # fmt: skip
