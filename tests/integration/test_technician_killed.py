"""The technician killed with SIGKILL at every step boundary, and between effect and record: real processes."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog
from roost.agent.technician.job import Job, Phase, Reply
from roost.agent.technician.journal import Journal
from tests.support.technician import CALLS, MODES, OWNER, child, empty

PATIENCE_S = 120


def outcome(folder: Path, mode: str, kill_at: int) -> int | None:
    """Run the technician in a process; return its exit code. Forked: its imports take longer than the job."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(folder, mode, kill_at))
    process.start()
    process.join(PATIENCE_S)
    return process.exitcode


def job_of(folder: Path) -> Job:
    journal = Journal(folder / "jobs.sqlite")
    try:
        return journal.job(journal.jobs(OWNER)[0].id)
    finally:
        journal.close()


def answer(folder: Path) -> Reply:
    """Answer as a user does who looks: an effect that is there is done."""
    journal, job = Journal(folder / "jobs.sqlite"), job_of(folder)
    step = job.open_step
    assert step is not None
    effects = folder / "effects"
    lines = effects.read_text().splitlines() if effects.exists() else []
    reply = Reply.DONE if step.call.arguments["line"] in lines else Reply.AGAIN
    journal.reply(job.id, OWNER, job.question_id, reply)
    journal.close()
    return reply


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
def test_killed_anywhere_it_finishes_or_asks_and_repeats_nothing_blindly(tmp_path: Path, mode: str) -> None:
    fresh, whole = tmp_path / "fresh", tmp_path / "whole"
    empty(fresh)
    shutil.copytree(fresh, whole)
    assert outcome(whole, mode, 0) == 0
    phase, _, counted = (whole / "said").read_text().partition(" ")
    assert phase == Phase.DONE
    asked = repeated = 0
    for kill_at in range(1, int(counted) + 1):
        folder = tmp_path / str(kill_at)
        shutil.copytree(fresh, folder)
        assert outcome(folder, mode, kill_at) == -signal.SIGKILL
        assert outcome(folder, mode, 0) == 0
        if job_of(folder).phase == Phase.ASKING:
            asked += 1
            answer(folder)
            assert outcome(folder, mode, 0) == 0
        assert job_of(folder).phase == Phase.DONE
        lines = (folder / "effects").read_text().splitlines()
        assert sorted(set(lines)) == [f"line {n + 1}" for n in range(CALLS)]
        repeated += len(lines) - CALLS
        assert AuditLog(folder / "audit").verify().intact
    # a look or a repeat always settles it; a runner that remembers is unsure only where it died itself
    expected = {
        "blind": 4 * CALLS, "repeatable": 0, "looking": 0, "remembering": 2 * CALLS, "asking": 4 * CALLS,
    }  # fmt: skip
    assert asked == expected[mode]
    # a tool that may be repeated shows that a repeat would be seen
    assert repeated == (2 * CALLS if mode == "repeatable" else 0)
