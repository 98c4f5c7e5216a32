"""Commands in a virtual machine through QEMU's guest agent: a serial line of its own, no network, no clock.

https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hosts.docker import Result

PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # asking is work for the guest, more where its processor is emulated
ANSWER_S = 60.0
MARKS = itertools.count(1)
FLUSH = b"\xff"  # what stands before it is an answer to somebody who has left


class GuestError(Exception):
    """The guest agent refused a command, or the machine has ended."""


class GuestAgent:
    """The agent behind a socket of QEMU's. It keeps no connection: a machine that reboots loses nothing of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ready(self, within_s: float = 2.0) -> bool:
        """Say whether the agent answers."""
        try:
            with self._connection(within_s):
                return True
        except (OSError, ValueError):
            return False

    def run(self, command: str, *, stdin: bytes | None, timeout_s: float) -> Result:
        """Run a shell command as root and wait for its end.

        Raises:
            TimeoutError: it did not end within `timeout_s` seconds, or the agent fell silent.
            GuestError: the agent refused.
        """
        begin = time.monotonic()
        wanted: dict[str, Any] = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        if stdin is not None:
            wanted["input-data"] = base64.b64encode(stdin).decode()
        with self._connection(ANSWER_S) as ask:
            number, pause_s = ask("guest-exec", wanted)["pid"], PAUSE_S
            while not (done := ask("guest-exec-status", {"pid": number}))["exited"]:
                if time.monotonic() - begin > timeout_s:
                    raise TimeoutError(f"`{command}` did not end within {timeout_s:.0f} s")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        out, err = (base64.b64decode(done.get(name, "")).decode(errors="replace") for name in ("out-data", "err-data"))
        code = done["exitcode"] if "exitcode" in done else 128 + done["signal"]
        return Result(code, out, err, time.monotonic() - begin)

    @contextlib.contextmanager
    def _connection(self, within_s: float) -> Iterator[Any]:
        """Connect, get past answers to others, and yield what asks one thing."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(within_s)
            line.connect(str(self._path))
            stream = line.makefile("rwb")

            def send(command: str, arguments: dict[str, Any]) -> None:
                stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
                stream.flush()

            def receive() -> dict[str, Any]:
                text = stream.readline()
                if not text:
                    raise ConnectionError("the machine has closed its line")
                return dict(json.loads(text.rpartition(FLUSH)[2]))

            def ask(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
                send(command, arguments)
                found = receive()
                if "error" in found:
                    raise GuestError(str(found["error"]))
                return dict(found["return"])

            mark = next(MARKS)
            stream.write(FLUSH)
            send("guest-sync-delimited", {"id": mark})
            while receive().get("return") != mark:
                pass
            yield ask
