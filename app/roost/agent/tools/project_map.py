"""`project_map`: the files that belong to a project, as git lists them, folded to folders where they are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from roost.agent.sandbox.guards import Limits
from roost.agent.sandbox.parent import Sandbox
from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.errors import RefusedError
from roost.agent.tools.threads import reading
from roost.agent.tools.undo_store import Place
from roost.ops.errors import RoostError

SHOWN = 400
WALKED = 5_000
GIT = ["git", "-c", "core.fsmonitor=", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]


class MapArguments(Arguments):
    """Nothing."""


def folded(paths: Sequence[str], shown: int = SHOWN) -> str:
    """Return the paths a line each; where they are more than `shown`, the folders with the number of their files."""
    if len(paths) <= shown:
        return "\n".join(sorted(paths)) or "(empty)"
    for depth in (4, 3, 2, 1):
        counts = Counter(path if path.count("/") < depth else "/".join(path.split("/")[:depth]) + "/" for path in paths)
        if len(counts) <= shown:
            break
    lines = [name if not name.endswith("/") else f"{name}  {count} files" for name, count in sorted(counts.items())]
    left = [f"(and {len(lines) - shown} more at the top)"] if len(lines) > shown else []
    return "\n".join([*lines[:shown], *left])


def map_tool(sandbox: Sandbox) -> Tool[MapArguments]:
    """Return the tool; git runs in the sandbox, because a repository's settings can name programs."""

    async def run(_given: MapArguments, place: Place | None) -> Done:
        here = in_place(place)
        try:
            ran = await sandbox.run(GIT, here.root, Limits(seconds=20.0), kept=(), hidden=())
        except RoostError as error:
            raise RefusedError(str(error)) from error
        if ran.code == 0 and not ran.ended_for:
            paths = [path for path in ran.output.decode(errors="replace").split("\0") if path]
        else:
            entries = await reading(here.files, lambda: list(here.files.walk(".", WALKED)))
            paths = [entry.path for entry in entries if entry.kind == "file"]
        return Done(folded(paths))

    spec = spec_of("project_map", "List the project's files.", MapArguments, Permission.READ, safe_to_repeat=True)
    return Tool(spec, MapArguments, run)
