"""`edit`: one exact piece of text of a file becomes another; where that fails, the nearest piece is shown."""

from __future__ import annotations

import difflib

from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.errors import ToolError
from roost.agent.tools.read import text_of
from roost.agent.tools.threads import to_end
from roost.agent.tools.undo_store import Place

NEAREST_LINES = 4_000
SHOWN_CHARACTERS = 1_200
LIKENESS = 0.4


class EditArguments(Arguments):
    """What to replace by what."""

    path: str = Field(description="Path in the workspace.")
    search: str = Field(min_length=1, description="Text that is in the file exactly once, with its spaces.")
    replace: str = Field(description="What stands there afterwards.")
    all: bool = Field(default=False, description="Replace each place where it is.")


def edited(text: str, search: str, replace: str, *, everywhere: bool, path: str) -> str:
    """Return the text with `search` replaced.

    Raises:
        ToolError: it is not there (the nearest is shown), or more than once (their lines are named).
    """
    count = text.count(search)
    if count == 0:
        raise ToolError(_not_found(text, search, path))
    if count > 1 and not everywhere:
        at, lines = 0, []
        for _ in range(min(count, 10)):
            at = text.index(search, at)
            lines.append(str(text.count("\n", 0, at) + 1))
            at += len(search)
        raise ToolError(
            f"The text is {count} times in {path} (lines {', '.join(lines)}): give more of what is around it, "
            'or "all": true.'
        )
    if search == replace:
        raise ToolError("search and replace are the same.")
    return text.replace(search, replace)


def nearest(text: str, search: str) -> tuple[int, str] | None:
    """Return the lines most like those searched for, with the number of the first; None where nothing is like them."""
    wanted = search.strip("\n").split("\n")
    lines = text.split("\n")[:NEAREST_LINES]
    size = len(wanted)
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2("\n".join(wanted))
    best, where = LIKENESS, -1
    for at in range(max(1, len(lines) - size + 1)):
        matcher.set_seq1("\n".join(lines[at : at + size]))
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best and (ratio := matcher.ratio()) > best:
            best, where = ratio, at
    return None if where < 0 else (where + 1, "\n".join(lines[where : where + size]))


def _not_found(text: str, search: str, path: str) -> str:
    found = nearest(text, search)
    if found is None:
        return f"The text is not in {path}, nor anything like it: read the file."
    line, piece = found
    return f"The text is not in {path} exactly. Nearest, from line {line}:\n{piece[:SHOWN_CHARACTERS]}"


def _edit(given: EditArguments, place: Place) -> Done:
    path = place.files.relative(given.path, change=True)
    data = place.files.read(path)
    text_of(data, path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path} is not UTF-8: editing would change more than asked.") from error
    search, replace = given.search, given.replace
    if search not in text and "\r\n" in text:  # models write line ends as LF only
        search, replace = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (search, replace))
    after = edited(text, search, replace, everywhere=given.all, path=path)
    with place.undo.changing(place, [path]):
        place.files.write(path, after.encode())
    diff = difflib.unified_diff(text.splitlines(), after.splitlines(), path, path, n=1, lineterm="")
    return Done("\n".join(diff), (path,))


async def _run(given: EditArguments, place: Place | None) -> Done:
    here = in_place(place)
    return await to_end(lambda: _edit(given, here))


EDIT = Tool(
    spec_of("edit", "Replace an exact piece of a file's text.", EditArguments, Permission.WRITE), EditArguments, _run
)
