"""A program in a real pseudo-terminal: what it shows is read, keys are typed."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "\x1b[?2004h"
"""The line editor asks the terminal to mark what is pasted: it takes a line now."""
TAKE_TERMINAL = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "from roost.cli.main import main; sys.argv[0] = 'roost'; main()"
)


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

    def wait_for_more(self) -> None:
        """Read what is shown next."""
        assert select.select([self.master], [], [], self._patience_s)[0], self.text
        assert self._read(), self.text

    def _read(self) -> bool:
        """Read what there is; False where the other side is closed."""
        try:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        except OSError:
            return False
        return True


def roost_at_terminal(
    api: str, key: str, folder: Path, words: Sequence[str], more: Mapping[str, str], patience_s: float
) -> Terminal:
    """Run `roost` at a pty of its own; `folder` takes what it keeps."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "app"), "TERM": "xterm", "XDG_STATE_HOME": str(folder),
        "ROOST_API": api, "ROOST_API_KEY": key, "PROMPT_TOOLKIT_NO_CPR": "1", **more,
    }  # fmt: skip
    environment.pop("NO_COLOR", None) if "NO_COLOR" not in more else None
    return Terminal([sys.executable, "-c", TAKE_TERMINAL, *words], environment, ROOT, patience_s)
