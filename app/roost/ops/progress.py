"""How progress looks on a terminal: one line a step, and while it lasts, one that counts the seconds.

`python -m roost.ops.progress` draws the present step. It is a process of its own, fed with lines `STEP<TAB>DETAIL`
(an empty one: nothing to draw), so that the playbook needs no thread to keep the seconds moving.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time

OK, FAILED = "✓", "✗"
GREEN, RED, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"
CLEAR_LINE = "\r\x1b[K"
TICK_S = 1.0


def count(number: int, what: str) -> str:
    """Return e.g. `1 change`, `2 changes`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def step_line(mark: str, step: str, seconds: float, note: str = "", *, colour: bool = False) -> str:
    """Return the line of a finished step."""
    shown = f"{GREEN if mark == OK else RED}{mark}{PLAIN}" if colour else mark
    return f"{shown} {step:<10}{seconds:5.0f} s{'   ' + note if note else ''}"


def running_line(step: str, detail: str, seconds: float, width: int) -> str:
    """Return the line of the present step, at most `width` characters."""
    return f"  {step:<10}{seconds:5.0f} s   {detail}"[: max(width - 1, 20)]


def draw(source: int, target: int) -> None:
    """Draw what the lines read from descriptor `source` say on the terminal `target`, until they end."""
    step = detail = ""
    began = time.monotonic()
    rest = b""
    while True:
        ready, _, _ = select.select([source], [], [], TICK_S)
        if ready:
            block = os.read(source, 65536)
            if not block:
                break
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                name, _, detail = line.decode(errors="replace").partition("\t")
                if name != step:
                    step, began = name, time.monotonic()
        width = shutil.get_terminal_size().columns
        shown = running_line(step, detail, time.monotonic() - began, width) if step else ""
        os.write(target, (CLEAR_LINE + shown).encode())
    os.write(target, CLEAR_LINE.encode())


if __name__ == "__main__":
    draw(sys.stdin.fileno(), sys.stdout.fileno())
