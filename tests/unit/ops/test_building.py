"""A program that works for long is followed line by line, and interrupted where nobody waits for it any more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from roost.ops import building
from roost.ops.building import follow

SAYS = """
import os, sys
print(os.getcwd(), os.environ["WORD"], flush=True)
print("to err", file=sys.stderr)
sys.exit(3)
"""
WAITS = """
import pathlib, signal, sys, threading
signal.signal(signal.SIGINT, lambda *_: (pathlib.Path(sys.argv[1]).write_text("interrupted"), sys.exit(1)))
print("begun", flush=True)
threading.Event().wait()
"""
DEAF = """
import signal, threading
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("begun", flush=True)
threading.Event().wait()
"""


def test_each_line_is_heard_and_the_exit_code_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "REPORT_EVERY_S", 0.0)
    heard: list[str] = []
    reported: list[float] = []
    code, seconds = follow([sys.executable, "-c", SAYS], {"WORD": "w"}, heard.append, reported.append, tmp_path)
    assert (code, sorted(heard)) == (3, sorted([f"{tmp_path} w\n", "to err\n"]))
    assert len(reported) == 2
    assert 0 < reported[0] <= reported[1] <= seconds


class EnoughError(Exception):
    """Nobody waits any more."""


def enough(_line: str) -> None:
    raise EnoughError


def test_a_program_that_nobody_waits_for_may_tidy_up(tmp_path: Path) -> None:
    with pytest.raises(EnoughError):
        follow([sys.executable, "-c", WAITS, str(tmp_path / "said")], {}, enough, lambda _s: None)
    assert (tmp_path / "said").read_text() == "interrupted"


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "INTERRUPT_WAIT_S", 0.1)
    with pytest.raises(EnoughError):
        follow([sys.executable, "-c", DEAF], {}, enough, lambda _s: None)
