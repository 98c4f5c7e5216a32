"""Driving jobs: what fails beneath the technician ends the work with a sentence, once."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog
from roost.agent.technician.job import Job, Phase
from roost.agent.technician.journal import Journal
from roost.agent.technician.technician import Technician
from roost.agent.technician.workshop import JOBS, Ended, work_until
from roost.agent.tool import ToolSpec
from roost.ops.errors import RoostError
from tests.support.technician import NothingAllowed, cannot_tell, tools_of_all
from tests.unit.agent.technician.test_advance import Mind, Runner

PATIENCE_S = 20.0


class Broken(Mind):
    """Plans so often; before that `error` is raised each time."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    async def plan(self, _job: Job, _tools: list[ToolSpec]) -> list[str]:
        self.asked += 1
        raise self.error


def worked(folder: Path, mind: Mind) -> Phase:
    """Work on one job until it is over, at most `PATIENCE_S`; return how it is then."""
    journal = Journal(folder / JOBS)
    job = journal.add("admin", "a file", "w").id
    until = time.monotonic() + PATIENCE_S

    def technician() -> tuple[Technician, Ended]:
        async def ended() -> None:
            return

        audit = AuditLog(folder / "audit")
        return Technician(journal, mind, tools_of_all(Runner()), audit, cannot_tell, NothingAllowed()), ended

    try:
        work_until(
            folder,
            journal,
            technician,
            lambda: journal.job(job).phase.over or time.monotonic() > until,
            lambda: time.sleep(0.05),
        )
    finally:
        phase = journal.job(job).phase
        journal.close()
    return phase


def test_a_job_is_driven_to_its_end(tmp_path: Path) -> None:
    assert worked(tmp_path, Mind()) == Phase.DONE


def test_a_full_disk_ends_the_work_with_a_sentence_and_not_the_job(tmp_path: Path) -> None:
    mind = Broken(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(RoostError, match="No space left") as caught:
        worked(tmp_path, mind)
    assert "resume" in str(caught.value.fix)
    assert mind.asked == 1


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path) -> None:
    mind = Broken(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        worked(tmp_path, mind)
    assert mind.asked == 1
