"""`write`: a file as a whole."""

from __future__ import annotations

from pydantic import Field

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.threads import to_end
from roost.agent.tools.undo_store import Place


class WriteArguments(Arguments):
    """What to write."""

    path: str = Field(description="Path in the workspace.")
    content: str = Field(description="The whole new text of the file.")


def _write(given: WriteArguments, place: Place) -> Done:
    path = place.files.relative(given.path, change=True)
    data = given.content.encode()
    with place.undo.changing(place, [path]):
        place.files.write(path, data)
    return Done(f"{path} written: {len(data):,} bytes.", (path,))


async def _run(given: WriteArguments, place: Place | None) -> Done:
    here = in_place(place)
    return await to_end(lambda: _write(given, here))


WRITE = Tool(
    spec_of("write", "Make a file, or replace all of its text.", WriteArguments, Permission.WRITE, safe_to_repeat=True),
    WriteArguments, _run,
)  # fmt: skip
