"""What came of each call, on the disk: an id that is asked for again is answered from here and not run again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.agent.tool import Outcome, ToolResult
from roost.ops.files import write_all

KEPT_CALLS = 10_000
KEPT_BYTES = 16 << 20
"""Of results' texts and names, the newest; of older ones the outcome is kept."""
LEFT = "(Its text is not kept any longer.)"


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
        self._whole: dict[str, None] = {}
        self._bytes = self._lines = self._written = 0
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
        self._take(result)
        self._append(Line(id=result.id, result=result))
        if self._lines > 4 * KEPT_CALLS or self._written > 4 * KEPT_BYTES:
            self._rewrite()

    def _take(self, result: ToolResult) -> None:
        """Know a result, and forget so much of older ones that what is known stays bounded."""
        before = self._known.get(result.id)
        self._bytes += _size(result) - (_size(before) if before else 0)
        self._known[result.id] = result
        self._whole[result.id] = None
        while self._bytes > KEPT_BYTES and len(self._whole) > 1:
            oldest = next(iter(self._whole))
            del self._whole[oldest]
            if shortened := self._known.get(oldest):
                self._bytes -= _size(shortened)
                self._known[oldest] = shortened.model_copy(update={"text": LEFT, "changed": ()})
        while len(self._known) > KEPT_CALLS:
            ended = next((call for call, known in self._known.items() if known and call != result.id), None)
            if ended is None:
                break  # all are under way
            gone = self._known.pop(ended)
            if ended in self._whole and gone:
                del self._whole[ended]
                self._bytes -= _size(gone)

    def _read(self) -> None:
        if not self._file.exists():
            return
        with self._file.open(errors="replace") as stream:
            for text in stream:
                try:
                    line = Line.model_validate_json(text)
                except ValidationError:
                    continue  # the last line of a crash
                if line.result:
                    self._take(line.result)
                else:
                    self._known[line.id] = None
        with suppress(OSError):  # a full disk: it stays as long as it is
            self._rewrite()

    def _rewrite(self) -> None:
        temporary = self._file.with_suffix(".new")
        with temporary.open("w") as stream:
            for call, result in self._known.items():
                stream.write(f"{Line(id=call, result=result).model_dump_json()}\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._written = temporary.stat().st_size
        self._lines = len(self._known)
        temporary.replace(self._file)

    def _append(self, line: Line) -> None:
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # begins with a line end: what a crash left half-written stays a line of its own
            text = f"\n{line.model_dump_json()}\n".encode()
            write_all(handle, text)
            os.fsync(handle)
            self._lines += 1
            self._written += len(text)
        finally:
            os.close(handle)


def _size(result: ToolResult) -> int:
    return len(result.text) + sum(map(len, result.changed))
