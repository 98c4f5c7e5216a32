"""`roost setup` at a real terminal (a pty): accepted, left, interrupted, and with the terminal gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from tests.unit.cli.fakes import Installation
from tests.unit.cli.test_setup import host_file, machine, slots_of

__all__ = ["machine"]

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0
WAITING_BOOTSTRAP = """#!/bin/sh
# Ends as bootstrap.sh does: in words, with 128 and the signal, 130 for an interrupt.
trap 'echo "bootstrap: stopped"; exit 130' INT
trap 'echo "bootstrap: stopped"; exit 143' TERM HUP
echo "bootstrap: started"
while :; do sleep 0.05; done
"""


TAKE_TERMINAL = (
    "import fcntl, runpy, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "runpy.run_module('tests.unit.cli.setup_program', run_name='__main__', alter_sys=False)"
)


@pytest.fixture
def terminals(machine: Installation) -> Iterator[list[Terminal]]:
    """Have a bootstrap.sh that waits; end what a test leaves."""
    (machine.folder / "release" / "bootstrap.sh").write_text(WAITING_BOOTSTRAP)
    made: list[Terminal] = []
    yield made
    for one in made:
        one.leave()


def opened(machine: Installation, terminals: list[Terminal], *words: str) -> Terminal:
    """Run the verb at a pty of its own, in a session of its own as a login shell's would be."""
    argv = [sys.executable, "-c", TAKE_TERMINAL, str(machine.folder / "release"), "setup", *words]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}", "TERM": "xterm", "NO_COLOR": "1"}
    terminals.append(Terminal(argv, environment, ROOT, PATIENCE_S))
    return terminals[-1]


def said(terminal: Terminal) -> str:
    return " ".join(terminal.text.split())


def test_accepted(machine: Installation, terminals: list[Terminal]) -> None:
    terminal = opened(machine, terminals, "--no-apply")
    terminal.wait_for("Accept, or change a slot")
    terminal.type("\r")
    terminal.wait_for("[y/n]")
    assert slots_of(machine) == []
    terminal.type("y\r")
    assert terminal.end() == 0
    assert [s["model"] for s in slots_of(machine)] == ["tiny"]


@pytest.mark.parametrize("how", ["interrupt", "end of input", "TERM"])
@pytest.mark.parametrize("at", ["Accept, or change a slot", "[y/n]"])
def test_stopped_at_a_question(machine: Installation, terminals: list[Terminal], how: str, at: str) -> None:
    before = host_file(machine).read_text()
    terminal = opened(machine, terminals)
    terminal.wait_for("Accept, or change a slot")
    if at == "[y/n]":
        terminal.type("\r")
        terminal.wait_for(at)
    if how == "TERM":
        terminal.child.send_signal(signal.SIGTERM)
    else:
        terminal.type("\x03" if how == "interrupt" else "\x04")
    assert terminal.end() == 130
    assert "Stopped. Nothing was changed." in said(terminal)
    assert "Traceback" not in terminal.text
    assert host_file(machine).read_text() == before
    assert [p.name for p in machine.folder.glob("*host.yaml*")] == ["host.yaml"]


def test_the_terminal_is_closed(machine: Installation, terminals: list[Terminal]) -> None:
    before = host_file(machine).read_text()
    terminal = opened(machine, terminals)
    terminal.wait_for("Accept, or change a slot")
    terminal.close()
    assert terminal.child.wait(PATIENCE_S) != 0
    assert host_file(machine).read_text() == before


@pytest.mark.parametrize("how", ["interrupt", "TERM"])
def test_stopped_while_it_starts(machine: Installation, terminals: list[Terminal], how: str) -> None:
    terminal = opened(machine, terminals, "--yes")
    terminal.wait_for("bootstrap: started")
    if how == "TERM":
        terminal.child.send_signal(signal.SIGTERM)
    else:
        terminal.type("\x03")
    assert terminal.end() == 130
    words = said(terminal)
    assert "bootstrap: stopped" in words  # it ended in its own way and was waited for
    assert f"Stopped. Fetched: tiny:Q8_0; {host_file(machine)} was written" in words
    assert "starting it was begun; run ./bootstrap.sh to go on." in words
    assert [s["model"] for s in slots_of(machine)] == ["tiny"]


def test_no_terminal(machine: Installation) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.cli.setup_program", str(machine.folder / "release"), "setup"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "There is nobody to ask" in done.stderr
    assert slots_of(machine) == []
