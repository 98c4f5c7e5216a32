"""A machine remembers how far its update came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from roost.fleet.rolling import record
from roost.fleet.rolling.record import UpdateRecord

DONE = UpdateRecord("passed", "settings", "made", "release", "2026-11-26T02:00:00+00:00")


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    assert record.read(tmp_path / "none") == UpdateRecord()
    record.write(tmp_path / "update", DONE)
    assert record.read(tmp_path / "update") == DONE
    assert (tmp_path / "update").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "update" / record.FILE).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_is_an_update_that_never_was(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"state": "passed"}', "\x00"):
        (tmp_path / record.FILE).write_text(text)
        assert record.read(tmp_path).differs("settings")


def test_only_what_passed_with_the_same_is_done() -> None:
    assert not DONE.differs("settings", "made")
    assert not DONE.differs("settings"), "what the first machine makes is not known before it has made it"
    assert DONE.differs("other", "made")
    assert DONE.differs("settings", "other")
    assert replace(DONE, state="changing").differs("settings", "made")
    assert replace(DONE, state="restored").differs("settings", "made")
