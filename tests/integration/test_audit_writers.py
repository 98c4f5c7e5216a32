"""The audit log's promise: sixteen processes, a thousand entries each, brought to the disk one by one."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog


def _add_many(folder: Path, count: int) -> None:
    log = AuditLog(folder, rotate_bytes=100_000)
    for number in range(count):
        log.add("alice", "tool.call", {"process": os.getpid(), "number": number})


@pytest.mark.timeout(1200)
def test_sixteen_processes_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    writers = [multiprocessing.Process(target=_add_many, args=(folder, 1000)) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log = AuditLog(folder)
    verdict = log.verify()
    assert (verdict.intact, verdict.entries) == (True, 16_000)
    seen = {(entry.detail["process"], entry.detail["number"]) for entry in log.tail(16_000)}
    assert len(seen) == 16_000
