"""`undo`: the files that the last change of this conversation changed are put back."""

from __future__ import annotations

from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.errors import ToolError
from roost.agent.tools.threads import to_end
from roost.agent.tools.undo_store import Place


class UndoArguments(Arguments):
    """Nothing."""


async def _run(_given: UndoArguments, place: Place | None) -> Done:
    here = in_place(place)
    done = await to_end(lambda: here.undo.undo(here), here.files.stopped)
    lines = [f"put back: {path}" for path in done.put_back]
    lines += [f"left alone, it was changed since: {path}" for path in done.left]
    lines += [f"not put back: {path}: {why}" for path, why in done.failed]
    if done.waiting:
        lines.insert(0, f"It was ended: {done.waiting} files are not put back yet. Undo again for these.")
    if done.failed or done.waiting:
        raise ToolError("\n".join(lines), done.put_back)
    return Done("\n".join(lines), done.put_back)


UNDO = Tool(
    spec_of("undo", "Put back the files that your last change changed.", UndoArguments, Permission.WRITE),
    UndoArguments, _run,
)  # fmt: skip
