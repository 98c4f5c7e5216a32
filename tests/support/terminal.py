"""A program in a real pseudo-terminal: what it shows is read, keys are typed."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Terminal:
    """A running program whose terminal this is. `text` is what it showed and nobody took yet."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, patience_s: float) -> None:
        self.master, slave = pty.openpty()
        self.text = ""
        self._patience_s = patience_s
        self.child = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=folder, env=environment
        )
        os.close(slave)

    def wait_for(self, words: str) -> None:
        """Read until the words were shown."""
        deadline = time.monotonic() + self._patience_s
        while words not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, self.text
            if select.select([self.master], [], [], left)[0] and not self._read():
                assert words in self.text, self.text
                return

    def take(self, words: str) -> str:
        """Read until the words were shown; return what was shown up to then, and forget it."""
        self.wait_for(words)
        seen, _, self.text = self.text.partition(words)
        return seen + words

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        deadline = time.monotonic() + self._patience_s
        while self.child.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0] and not self._read():
                break
        return self.child.wait(self._patience_s)

    def close(self) -> None:
        """Close the terminal's window."""
        os.close(self.master)
        self.master = -1

    def leave(self) -> None:
        """End what still runs, and close."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        if self.master >= 0:
            self.close()

    def _read(self) -> bool:
        """Read what there is; False where the other side is closed."""
        try:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        except OSError:
            return False
        return True
