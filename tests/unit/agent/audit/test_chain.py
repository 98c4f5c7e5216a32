"""The audit log: many writers, any changed byte, anchors, crashes, rotation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.agent.audit.chain import Head, follow
from roost.agent.audit.log import NAME, AuditLog, read_anchors
from roost.gateway.telemetry import REDACTED
from roost.ops.errors import RoostError


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit")


def filled(folder: Path, count: int, rotate_bytes: int = 1 << 20) -> AuditLog:
    log = AuditLog(folder, rotate_bytes=rotate_bytes)
    for number in range(count):
        log.add("alice", "tool.call", {"tool": "read", "path": f"é-{number}.txt"}, "0123")
    return log


def test_an_empty_log_is_intact(log: AuditLog) -> None:
    verdict = log.verify()
    assert (verdict.intact, verdict.entries, verdict.head, log.head()) == (True, 0, Head(), Head())


def test_entries_follow_one_another(log: AuditLog) -> None:
    first = log.add("alice", "tool.call", {"tool": "write"})
    second = log.add("bob", "session.purge", session="0123")
    assert (first.seq, second.seq, log.head()) == (1, 2, second)
    assert log.verify().intact
    assert [entry.action for entry in log.tail(5)] == ["tool.call", "session.purge"]
    assert [entry.owner for entry in log.tail(5, owner="bob")] == ["bob"]


def test_no_secret_is_recorded(log: AuditLog, tmp_path: Path) -> None:
    log.add("alice", "tool.call", {"password": "hunter2", "command": f"curl -H 'Authorization: Bearer {'a' * 30}'"})
    text = (tmp_path / "audit" / NAME).read_text()
    assert "hunter2" not in text
    assert "a" * 30 not in text
    assert text.count(REDACTED) == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole") / "audit"
    filled(folder, 6)
    return (folder / NAME).read_bytes()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_byte_changed_is_found(whole: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    changed = whole[:place] + bytes([byte]) + whole[place + 1 :]
    _, fault = follow(changed.splitlines(keepends=True), Head())
    split, other = follow([line + b"\n" for line in changed.split(b"\n")[:-1]], Head())
    assert fault is not None
    assert other is not None or split.seq < 6  # the last line feed itself


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_an_entry_left_out_doubled_or_moved_is_found(whole: bytes, data: st.DataObject) -> None:
    lines = whole.splitlines(keepends=True)
    others = data.draw(st.lists(st.sampled_from(lines), min_size=1, max_size=7).filter(lambda some: some != lines))
    head, fault = follow(others, Head())
    # the beginning of a chain is a chain: how long it should be says an anchor
    assert fault is not None or others == lines[: head.seq]


def test_what_was_cut_off_is_found_by_an_anchor(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 5)
    anchors = read_anchors(f"{log.head().seq} {log.head().hash}\n")
    assert log.verify(anchors).anchors == 1
    path = tmp_path / "audit" / NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert log.verify().intact
    verdict = log.verify(anchors)
    assert verdict.fault is not None
    assert "Entry 5" in verdict.fault.problem
    assert "cut off" in verdict.fault.problem
    for _ in range(2):
        log.add("mallory", "tool.call")
    rewritten = log.verify(anchors).fault
    assert rewritten is not None
    assert "not the one that was anchored" in rewritten.problem


@pytest.mark.parametrize("text", ["x", "1", "1 abc", "a " + "0" * 64])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(RoostError, match="no anchor"):
        read_anchors(text)


def test_an_entry_cut_off_by_a_crash_is_cut_off_and_the_chain_says_so(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 3)
    path = tmp_path / "audit" / NAME
    path.write_bytes(path.read_bytes()[:-20])
    fault = log.verify().fault
    assert fault is not None
    assert (fault.line, fault.problem) == (3, "was cut off")
    log.add("alice", "tool.call")
    assert log.verify().intact
    assert [entry.action for entry in log.tail(9)] == ["tool.call", "tool.call", "audit.mended", "tool.call"]


def test_an_entry_that_only_lacks_its_end_is_kept(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 3)
    path = tmp_path / "audit" / NAME
    path.write_bytes(path.read_bytes()[:-1])
    assert log.add("alice", "tool.call").seq == 4
    assert log.verify().intact


def test_nothing_is_added_to_a_damaged_end(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 3)
    path = tmp_path / "audit" / NAME
    before = path.read_bytes().replace(b"-2.txt", b"-9.txt")
    path.write_bytes(before)
    with pytest.raises(RoostError, match="nothing is added"):
        log.add("alice", "tool.call")
    assert path.read_bytes() == before


def test_the_chain_goes_on_over_files(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 20, rotate_bytes=1500)
    names = [path.name for path in log.files()]
    assert len(names) > 3
    assert names[0] == "audit-1.jsonl"
    verdict = log.verify()
    assert (verdict.intact, verdict.entries, verdict.files) == (True, 20, len(names))
    assert [entry.seq for entry in log.tail(12)] == list(range(9, 21))
    (tmp_path / "audit" / names[1]).unlink()
    broken = log.verify()
    assert (broken.file, broken.fault is not None) == (names[2], True)


def test_a_full_disk_leaves_no_half_of_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path / "audit", 2)
    real = os.fsync

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        log.add("alice", "tool.call")
    monkeypatch.setattr(os, "fsync", real)
    assert log.add("alice", "tool.call").seq == 3
    assert log.verify().intact
