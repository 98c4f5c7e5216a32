"""Keys that are pressed while the agent works: Esc and Ctrl-C stop it, lines that are typed ahead wait."""

from __future__ import annotations

import os
import queue
import re
import select
import termios
import threading
import tty
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from roost.ops.errors import RoostError

ESCAPE = b"\x1b"
SEQUENCES = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|[^\x1b\[O])")
"""Keys that terminals send as several bytes (ECMA-48, section 5.4): arrows, function keys, Alt with a letter."""
BREAK = re.compile(rb"\x1b[\r\n]")
"""Alt-Enter: a new line of the same message."""
ENTER, ERASE, KILL = "\r\n", "\b\x7f", "\x15"
"""Keys that edit an unseen line as a terminal does: Enter, Backspace, Ctrl-U."""
ALONE_S = 0.05
"""A lone Esc; what follows it sooner is a key that a terminal sends as several bytes."""
Event = dict[str, Any]


class StoppedError(Exception):
    """Esc, or Ctrl-C, while events came."""


class RepliedError(Exception):
    """A line that answers a question; `line` is what it says."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


class Ahead:
    """What is typed while an answer is written: `lines` that Enter ended, in order, and the `rest` after them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rest = ""

    def take(self, typed: bytes) -> None:
        """Take what a terminal sent; keys that stand for no character are left out, as are empty lines."""
        for number, piece in enumerate(BREAK.split(typed)):
            self.rest += "\n" if number else ""
            for key in SEQUENCES.sub(b"", piece).decode(errors="ignore"):
                self._press(key)

    def _press(self, key: str) -> None:
        if key in ENTER:
            if line := self.rest.strip():
                self.lines.append(line)
            self.rest = ""
        elif key in ERASE:
            self.rest = self.rest[:-1]
        elif key == KILL:
            self.rest = ""
        elif key.isprintable():
            self.rest += key


@contextmanager
def key_by_key(handle: int) -> Iterator[None]:
    """Have a terminal hand over each key at once, unseen; Ctrl-C stays what it is."""
    before = termios.tcgetattr(handle)
    tty.setcbreak(handle, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


class Watch:
    """Reads events in a thread and keys here, into `ahead`; one who stops gets what still comes, up to the end."""

    def __init__(self, events: Iterable[Event], handle: int, ahead: Ahead) -> None:
        self._events = events
        self._handle = handle
        self._got: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._awake, self._wake = os.pipe()
        self._ahead = ahead
        self.reply: Ahead | None = None
        """Takes the keys while something is asked; what was typed before that is no answer."""
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """Let go of the pipe; the thread ends with its events."""
        os.close(self._awake)

    def __iter__(self) -> Iterator[Event]:
        """Yield events until there are no more.

        Raises:
            StoppedError: Esc was pressed; iterating again goes on.
            RepliedError: a line was typed to what is asked; likewise.
        """
        while True:
            ready, _, _ = select.select([self._handle, self._awake], [], [])
            if self._handle in ready and self._stopped():
                raise StoppedError
            if self.reply and self.reply.lines:
                raise RepliedError(self.reply.lines.pop(0))
            if self._awake in ready:
                os.read(self._awake, 1)
                got = self._got.get()
                if got is None:
                    return
                if isinstance(got, BaseException):
                    raise got
                yield got

    def _stopped(self) -> bool:
        typed = os.read(self._handle, 1024)
        (self.reply or self._ahead).take(typed)
        return SEQUENCES.sub(b"", typed).endswith(ESCAPE) and not select.select([self._handle], [], [], ALONE_S)[0]

    def _read(self) -> None:
        try:
            for event in self._events:
                self._tell(event)
        except (RoostError, OSError, ValueError, KeyError) as error:
            self._tell(error)
        finally:
            self._tell(None)
            os.close(self._wake)

    def _tell(self, what: Event | BaseException | None) -> None:
        self._got.put(what)
        try:
            os.write(self._wake, b".")
        except OSError:  # nobody listens any more
            return
