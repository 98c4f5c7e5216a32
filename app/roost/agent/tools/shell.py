"""`shell`: a command in the sandbox, in the workspace, without network and without input."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from pydantic import Field

from roost.agent.sandbox.destructive import destructive, risky
from roost.agent.sandbox.guards import Limits
from roost.agent.sandbox.parent import Sandbox
from roost.agent.tool import Permission
from roost.agent.tools.base import Arguments, Done, Tool, in_place, spec_of
from roost.agent.tools.beneath import KEPT, Beneath
from roost.agent.tools.errors import CutOffError, RefusedError, ToolError
from roost.agent.tools.threads import reading, to_end
from roost.agent.tools.undo_store import Place, State, snapshot
from roost.ops.errors import RoostError

LOOKED_AT = 200_000
HELD = ".git-held-by-roost"
TIMEOUT_S = 120.0


class ShellArguments(Arguments):
    """What to run."""

    command: str = Field(min_length=1, max_length=20_000, description="Command line for sh.")


@dataclass(frozen=True)
class Protected:
    """What a workspace has that a program must not change (`kept`) or see (`hidden`)."""

    kept: tuple[str, ...]
    hidden: tuple[str, ...]


def protected(files: Beneath) -> Protected:
    """Return what is protected in a workspace, at any depth.

    Raises:
        RefusedError: there are too many files to look at all.
    """
    kept = []
    for count, entry in enumerate(files.walk(".", LOOKED_AT + 1), 1):
        if count > LOOKED_AT:
            raise RefusedError(f"The workspace has more than {LOOKED_AT:,} files: choose a folder of it.")
        name = entry.path.rsplit("/", 1)[-1]
        if name in KEPT and entry.kind in {"file", "folder"}:
            kept.append(entry.path)
    return Protected(tuple(kept), tuple(files.hidden()))


def shell_tool(sandbox: Sandbox, limits: Limits | None = None) -> Tool[ShellArguments]:
    """Return the tool that runs commands in a sandbox."""
    allowed = replace(limits or Limits(), seconds=TIMEOUT_S - 10) if limits is None else limits

    async def run(given: ShellArguments, place: Place | None) -> Done:
        here = in_place(place)
        if why := _against(given.command, allowed=here.allowed):
            raise RefusedError(f"Not run, because {why}. They can do it by hand.")
        try:
            kept = await reading(here.files, lambda: protected(here.files))
            before = await reading(here.files, lambda: snapshot(here.files, here.undo))
        except asyncio.CancelledError:
            raise RefusedError("It was ended before the program began: nothing was done.") from None
        ran = None
        try:
            ran = await sandbox.run(
                ["/bin/sh", "-c", given.command], here.root, allowed, kept=kept.kept, hidden=kept.hidden
            )
        except RoostError as error:
            raise RefusedError(str(error)) from error
        except asyncio.CancelledError:
            pass  # what it did by now is found out below
        finally:
            held = await to_end(lambda: _hold_new(here.files, kept))
            changed = await to_end(lambda: _note(here, before))
        said = ran.output.decode(errors="replace") if ran else "The program was ended while it ran."
        notes = [f"{path} was renamed to {HELD}: git would run what a tool put there." for path in held]
        if changed is None:
            notes.append("The workspace is too large: what the command changed is not accounted for and stays.")
        changed = changed or ()
        text = "\n".join([said.rstrip("\n"), *notes]).strip("\n")
        if ran is None:
            raise CutOffError(text, changed)
        if ran.ended_for:
            raise ToolError(f"Ended: {ran.ended_for}.\n{text}", changed)
        if ran.code:
            raise ToolError(f"Exit code {ran.code}.\n{text}", changed)
        return Done(text or "(no output)", changed)

    spec = spec_of(
        "shell", "Run a command in the workspace. There is no network and no input.", ShellArguments, Permission.RUN,
        timeout_s=TIMEOUT_S,
    )  # fmt: skip
    return Tool(spec, ShellArguments, run)


def _against(command: str, *, allowed: bool) -> str:
    """Return what keeps a command from running, and the user from allowing it; '' for nothing."""
    if why := destructive(command):
        return f"it {why}, which the user cannot allow"
    why = "" if allowed else risky(command)
    return f"it {why}, and the user did not allow it" if why else ""


def _hold_new(files: Beneath, before: Protected) -> list[str]:
    """Rename each `.git` that was not there before the call: a repository's settings name programs."""
    now = protected(files)
    new = [path for path in now.kept if path not in before.kept]
    for number, path in enumerate(new):
        files.hold(path, f"{HELD}-{number}" if number else HELD)
    return new


def _note(place: Place, before: dict[str, State] | None) -> tuple[str, ...] | None:
    """Note what a program changed; None where there was too much to look at, before or after."""
    after = None if before is None else snapshot(place.files, place.undo, keep=False)
    if before is None or after is None:
        return None
    return place.undo.note(place, {path: before.get(path) for path in before.keys() | after.keys()}, after)
