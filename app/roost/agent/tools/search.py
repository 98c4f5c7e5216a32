"""`search`: lines of files that match a regular expression. Bounded in files, bytes, matches and time.

The reading goes through `Beneath` and not ripgrep: what ripgrep opens is looked up by path, which a link could turn.
"""

from __future__ import annotations

import fnmatch
import re
import time

from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.errors import RefusedError, ToolError
from roost.agent.tools.threads import reading
from roost.agent.tools.undo_store import Place

FILES = 20_000
FILE_BYTES = 2 << 20
MATCHES = 200
LINE_CHARACTERS = 240
SECONDS = 20.0
NESTED = re.compile(r"[+*}]\)?[+*{]|\([^()]*[+*][^()]*\)[+*{]")
"""Repeats of repeats: Python's engine may take exponential time on them."""


class SearchArguments(Arguments):
    """What to look for, and where."""

    pattern: str = Field(min_length=1, max_length=400, description="Regular expression; matched line by line.")
    path: str = Field(default=".", description="Folder in the workspace.")
    files: str = Field(default="*", description="Only files of this name pattern, such as *.py.")
    ignore_case: bool = False


def expression(pattern: str, *, ignore_case: bool) -> re.Pattern[str]:
    """Return a pattern compiled; what is no expression, or could run for ever, is taken as plain text."""
    flags = re.IGNORECASE if ignore_case else 0
    if NESTED.search(pattern):
        return re.compile(re.escape(pattern), flags)
    try:
        return re.compile(pattern, flags)
    except re.error:
        return re.compile(re.escape(pattern), flags)


def _search(files: Beneath, given: SearchArguments) -> Done:
    wanted = expression(given.pattern, ignore_case=given.ignore_case)
    end, found, note = time.monotonic() + SECONDS, list[str](), ""
    for entry in files.walk(given.path, FILES):
        if time.monotonic() > end:
            note = f"(stopped after {SECONDS:.0f} s: search in a folder of it)"
            break
        name = entry.path.rsplit("/", 1)[-1]
        if entry.kind != "file" or entry.size > FILE_BYTES or not fnmatch.fnmatch(name, given.files):
            continue
        try:
            data = files.read(entry.path, FILE_BYTES)
        except (ToolError, RefusedError):
            continue
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if wanted.search(line[:4096]):
                found.append(f"{entry.path}:{number}: {line.strip()[:LINE_CHARACTERS]}")
        if len(found) > MATCHES:
            note = f"(more than {MATCHES}: ask for less)"
            break
    if not found:
        return Done(note or "Nothing found.")
    return Done("\n".join([*found[:MATCHES], *([note] if note else [])]))


async def _run(given: SearchArguments, place: Place | None) -> Done:
    files = in_place(place).files
    return await reading(files, lambda: _search(files, given))


SEARCH = Tool(
    spec_of("search", "Find lines in files.", SearchArguments, Permission.READ, safe_to_repeat=True),
    SearchArguments, _run,
)  # fmt: skip
