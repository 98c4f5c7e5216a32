"""`list`: what is in a folder."""

from __future__ import annotations

from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.beneath import Beneath, Entry
from roost.agent.tools.threads import reading
from roost.agent.tools.undo_store import Place

ENTRIES = 1_000


class ListArguments(Arguments):
    """Which folder."""

    path: str = Field(default=".", description="Folder in the workspace.")
    deep: bool = Field(default=False, description="Also what is in its folders.")


def _list(files: Beneath, given: ListArguments) -> Done:
    entries = files.entries(given.path)  # says so where there is no such folder, which a walk would pass over
    if given.deep:
        entries = list(files.walk(given.path, ENTRIES + 1))
    lines = [_line(entry) for entry in entries[:ENTRIES]]
    if len(entries) > ENTRIES:
        lines.append(f"(more than {ENTRIES}: list a folder in it)")
    return Done("\n".join(lines) or "(empty)")


def _line(entry: Entry) -> str:
    ends = {"folder": "/", "link": " (link)", "other": " (no file)"}
    return f"{entry.path}{ends.get(entry.kind, '')}" + (f"  {entry.size:,} bytes" if entry.kind == "file" else "")


async def _run(given: ListArguments, place: Place | None) -> Done:
    files = in_place(place).files
    return await reading(files, lambda: _list(files, given))


LIST = Tool(
    spec_of("list", "List a folder's files and folders.", ListArguments, Permission.READ, safe_to_repeat=True),
    ListArguments, _run,
)  # fmt: skip
