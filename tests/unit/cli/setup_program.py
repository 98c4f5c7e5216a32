"""`roost setup` as a process, with test_setup's stand-in for placement: `python -m tests.unit.cli.setup_program RELEASE
WORD...`. Everything else is real."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from roost.cli import setup as setup_verb
from roost.cli import setup_machine
from roost.cli.verbs import run_command_line
from roost.fleet.setup import Planner
from tests.unit.cli.test_setup import FakePlanner


def planner_for(*_asked: object) -> tuple[Planner, tuple[str, ...]]:
    """Stand in for placement."""
    return FakePlanner(), ("main",)


if __name__ == "__main__":
    release = Path(sys.argv.pop(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup_machine, "planner_for", planner_for)
        patch.setattr(setup_verb, "release_dir", lambda: release)
        sys.exit(run_command_line())
