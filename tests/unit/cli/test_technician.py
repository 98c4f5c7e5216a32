"""`roost technician`: what it says to words that it does not know."""

from __future__ import annotations

from typer.testing import CliRunner

from roost.cli import technician
from roost.ops.errors import RoostError


def test_an_answer_that_is_none_is_told_with_those_there_are() -> None:
    done = CliRunner().invoke(technician.app, ["answer", "8f3k2m9q0a1b2c3d", "maybe"])
    assert isinstance(done.exception, RoostError)
    assert done.exception.message == "'maybe' is no answer; there are done, again, stop."
    assert done.exception.exit_code == 2
