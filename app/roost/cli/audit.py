"""`roost audit`: check, show and anchor the log of what agents did."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from roost.agent.audit.chain import Head
from roost.agent.audit.log import AuditLog, Verdict, read_anchors
from roost.cli.keys import JsonOption
from roost.cli.show import local_time, print_json, print_table
from roost.ops.errors import RoostError
from roost.ops.site import load_site

app = typer.Typer(no_args_is_help=True)
BROKEN = 7
COMMAND_TIMEOUT_S = 60.0

FolderOption = Annotated[
    Path | None, typer.Option("--dir", help="Folder of the log; that of this machine's agent if it is not given.")
]


@app.command("verify")
def verify(
    *,
    folder: FolderOption = None,
    anchors: Annotated[
        Path | None, typer.Option(help="File with anchors, `NUMBER HASH` a line: finds what was cut off, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Go along the whole chain; exits with 7 where it is broken.

    Example: roost audit verify --anchors /mnt/elsewhere/roost-audit
    """
    known = read_anchors(_text_of(anchors)) if anchors else None
    verdict = _log_of(folder).verify(known)
    if as_json:
        print_json(_document(verdict))
    elif verdict.intact:
        against = f", {verdict.anchors} anchors agree" if verdict.anchors else ""
        print(f"intact: {verdict.entries} entries in {verdict.files} files{against}; ends with {_line(verdict.head)}")
    if verdict.fault:
        where = f"{verdict.file}, line {verdict.fault.line}: " if verdict.fault.line else ""
        raise RoostError(
            f"The audit log is broken behind entry {verdict.head.seq}: {where}{verdict.fault.problem}.",
            fix="Keep the folder as it is for whoever looks into it; what stands before that place still holds.",
            exit_code=BROKEN,
        )


@app.command("tail")
def tail(
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many entries.")] = 20,
    owner: Annotated[str, typer.Option(help="Of this key only.")] = "",
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last entries.

    Example: roost audit tail -n 50 --owner alice
    """
    entries = _log_of(folder).tail(count, owner)
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in entries])
        return
    print_table(
        ["entry", "at", "key", "action", "session", "detail"],
        [
            (
                e.seq,
                local_time(e.at),
                e.owner,
                e.action,
                e.session,
                " ".join(f"{name}={value}" for name, value in e.detail.items()),
            )
            for e in entries
        ],
    )


@app.command("anchor")
def anchor(
    *,
    to: Annotated[Path | None, typer.Option(help="Add it to this file, which lies elsewhere.")] = None,
    command: Annotated[str, typer.Option(help="Hand it to this command (sh) on its standard input.")] = "",
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the chain's end away: whoever has it can tell later that nothing before it was changed or cut off.

    Example: roost audit anchor --command 'ssh elsewhere "cat >>roost-audit"'
    """
    head = _log_of(folder).head()
    line = _line(head) + "\n"
    if to:
        try:
            with to.open("a") as stream:
                stream.write(line)
        except OSError as error:
            raise RoostError(f"{to} cannot be written: {error.strerror}.", fix="Name a file that can be.") from None
    if command:
        _hand_over(command, line)
    if as_json:
        print_json({"entry": head.seq, "hash": head.hash})
    else:
        print(line, end="")


def _hand_over(command: str, line: str) -> None:
    try:
        done = subprocess.run(["/bin/sh", "-c", command], input=line, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise RoostError(
            f"The command did not end within {COMMAND_TIMEOUT_S:.0f} s.", fix=f"Try it by hand: {command}"
        ) from None
    if done.returncode:
        raise RoostError(f"The command ended with {done.returncode}: nothing is anchored.", fix="Try it by hand.")


def _log_of(folder: Path | None) -> AuditLog:
    place = folder or load_site().state_dir / "agent" / "audit"
    try:
        if not place.is_dir():
            raise RoostError(
                f"There is no audit log in {place}: no agent has acted yet.", fix="Name another folder with --dir."
            )
        return AuditLog(place)
    except PermissionError:
        raise RoostError(f"{place} may not be read.", fix="Run it as root: sudo roost audit.", exit_code=4) from None


def _document(verdict: Verdict) -> dict[str, object]:
    return {
        "intact": verdict.intact, "entries": verdict.entries, "files": verdict.files,
        "head": {"entry": verdict.head.seq, "hash": verdict.head.hash}, "anchors": verdict.anchors,
        "file": verdict.file, "line": verdict.fault.line if verdict.fault else None,
        "problem": verdict.fault.problem if verdict.fault else "",
    }  # fmt: skip


def _line(head: Head) -> str:
    return f"{head.seq} {head.hash}"


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RoostError(f"{path} cannot be read: {error}.", fix="Name the file with the anchors.") from None
