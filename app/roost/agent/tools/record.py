"""What came of each call, on the disk: an id that is asked for again is answered from here and not run again."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.agent.tool import Outcome, ToolResult
from roost.ops.files import write_all

KEPT_CALLS = 10_000


class Line(BaseModel):
    """A line: a call was begun (no result), or has ended."""

    model_config = ConfigDict(frozen=True)

    id: str
    result: ToolResult | None = None


class OutcomeRecord:
    """The outcomes of one worker. A call that was begun and has no outcome when it starts is one that died with it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known: dict[str, ToolResult | None] = {}
        self._read()

    def known(self, call: str) -> ToolResult | None:
        """Return what came of a call; None if it was never begun. One that was lost is `UNKNOWN`."""
        if call not in self._known:
            return None
        lost = "The worker ended while this ran: it may have been done. Look before it is done again."
        return self._known[call] or ToolResult(id=call, outcome=Outcome.UNKNOWN, text=lost)

    def begin(self, call: str) -> None:
        """Write down that a call begins, before anything of it is done.

        Raises:
            OSError: the disk does not take it; the call counts as not begun.
        """
        self._append(Line(id=call))
        self._known[call] = None

    def end(self, result: ToolResult) -> None:
        """Write down what came of it.

        Raises:
            OSError: the disk does not take it: it is known until this process ends, and `UNKNOWN` after.
        """
        self._known[result.id] = result
        self._append(Line(id=result.id, result=result))

    def _read(self) -> None:
        if not self._file.exists():
            return
        lines = self._file.read_text(errors="replace").splitlines()
        for text in lines:
            try:
                line = Line.model_validate_json(text)
            except ValidationError:
                continue  # the last line of a crash
            self._known[line.id] = line.result
        self._known = dict(list(self._known.items())[-KEPT_CALLS:])
        if len(lines) > 4 * KEPT_CALLS:
            self._rewrite()

    def _rewrite(self) -> None:
        temporary = self._file.with_suffix(".new")
        with temporary.open("w") as stream:
            for call, result in self._known.items():
                stream.write(f"{Line(id=call, result=result).model_dump_json()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._file)

    def _append(self, line: Line) -> None:
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # begins with a line end: what a crash left half-written stays a line of its own
            write_all(handle, f"\n{line.model_dump_json()}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
