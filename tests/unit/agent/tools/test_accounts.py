"""What calls changed: strange names, many files, one call at a time, and what is kept of it all."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from roost.agent.sandbox.guards import Limits
from roost.agent.sandbox.parent import Ran
from roost.agent.tool import MOST_CHANGED, Outcome, ToolCall, ToolResult
from roost.agent.tools import record, undo_store
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.record import OutcomeRecord
from roost.agent.tools.runner import LocalRunner, standard_tools
from roost.agent.tools.undo_store import Place, UndoStore
from tests.unit.agent.tools.test_local_runner import Desk, Scripted


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_name_that_is_not_utf_8_is_told_escaped_and_put_back(desk: Desk) -> None:
    name = os.fsdecode(b"caf\xe9")
    (desk.root / name).write_text("old")
    desk.sandbox.files = {name: "new", "plain": "new"}
    ran = await desk.call("shell", command="make")
    assert ran.outcome is Outcome.OK
    assert ran.changed == ("caf\\udce9", "plain")
    ran.model_dump_json()
    desk.runner = LocalRunner("anna", desk.workspaces, desk.base / "state", standard_tools(desk.sandbox))
    undone = await desk.call("undo")
    assert undone.outcome is Outcome.OK
    assert (desk.root / name).read_text() == "old"
    assert not (desk.root / "plain").exists()


async def test_what_is_too_much_to_account_for_is_said_and_nothing_is_called_changed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_store, "SNAPSHOT_FILES", 20)
    for number in range(10):
        (desk.root / f"mine{number}").write_text("mine")
    desk.sandbox.files = {f"made{number}": "x" for number in range(15)}
    ran = await desk.call("shell", command="make")
    assert (ran.outcome, ran.changed) == (Outcome.OK, ())
    assert "not accounted" in ran.text
    assert (await desk.call("undo")).outcome is Outcome.FAILED
    assert (desk.root / "mine0").exists()


async def test_of_many_changed_files_some_are_named_and_all_are_counted(desk: Desk) -> None:
    desk.sandbox.files = {f"made{number:04}": "x" for number in range(MOST_CHANGED + 7)}
    ran = await desk.call("shell", command="make")
    assert len(ran.changed) == MOST_CHANGED
    assert "7 more" in ran.text


class Slow(Scripted):
    """A program that takes until it is let go, and how many run at once."""

    def __init__(self) -> None:
        super().__init__({})
        self.go, self.begun = asyncio.Event(), asyncio.Event()
        self.now = self.most = 0

    async def run(
        self, program: Sequence[str], root: Path, limits: Limits, *, kept: Sequence[str], hidden: Sequence[str]
    ) -> Ran:
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.set()
        await self.go.wait()
        self.now -= 1
        return await super().run(program, root, limits, kept=kept, hidden=hidden)


def made(number: str, name: str = "shell", workspace: str = "project") -> ToolCall:
    arguments = {"shell": {"command": "make"}, "list": {}, "write": {"path": "f", "content": "x"}}[name]
    return ToolCall(id=number, name=name, arguments=dict(arguments), session="s", workspace=workspace)


async def test_calls_that_change_a_workspace_wait_for_each_other_and_others_do_not(tmp_path: Path) -> None:
    desk, box = Desk(tmp_path), Slow()
    (tmp_path / "other").mkdir()
    desk.workspaces.add(tmp_path / "other", "anna")
    desk.runner = LocalRunner("anna", desk.workspaces, tmp_path / "state", standard_tools(box))
    first = asyncio.create_task(desk.runner.run(made("1")))
    await box.begun.wait()
    second = asyncio.create_task(desk.runner.run(made("2")))
    third = asyncio.create_task(desk.runner.run(made("3", "write")))
    assert (await desk.runner.run(made("4", "list"))).outcome is Outcome.OK
    assert (await desk.runner.run(made("5", "write", "other"))).outcome is Outcome.OK
    assert not (desk.root / "f").exists()
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    assert (await desk.runner.run(made("3", "write"))).outcome is Outcome.REFUSED
    box.go.set()
    assert [one.outcome for one in await asyncio.gather(first, second)] == [Outcome.OK, Outcome.OK]
    assert box.most == 1
    assert not (desk.root / "f").exists()


async def test_a_change_that_cannot_be_accounted_for_says_that_it_was_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UndoStore, "_append", full)
    done = await desk.call("write", path="f", content="new")
    assert (done.outcome, done.changed) == (Outcome.FAILED, ("f",))
    assert "It was done" in done.text


def place(desk: Desk, store: UndoStore, call: str) -> Place:
    return Place(desk.root, Beneath(desk.root), store, call, "s")


def test_accounts_and_copies_that_are_old_or_too_many_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo_store, "KEPT_ACCOUNTS", 3)
    store = UndoStore(desk.base / "undo")
    (desk.root / "f").write_text("0")
    for number in range(1, 8):
        with store.changing(place(desk, store, f"c{number}"), ["f"]):
            (desk.root / "f").write_text(str(number))
    blobs = desk.base / "undo" / "blobs"
    assert len(list(blobs.iterdir())) == 7
    store.prune(time.time())
    assert len(list(blobs.iterdir())) == 7, "what is new may belong to a call that runs"
    store.prune(time.time() + 2 * undo_store.SPARED_S)
    assert len(list(blobs.iterdir())) == 3
    for back in ("6", "5", "4"):
        store.undo(place(desk, store, "u"))
        assert (desk.root / "f").read_text() == back
    with store.changing(place(desk, store, "last"), ["f"]):
        (desk.root / "f").write_text("last")
    store.prune(time.time() + 2 * undo_store.KEPT_S)
    assert list(blobs.iterdir()) == []
    assert (desk.base / "undo" / "changes.jsonl").read_text() == ""


def test_copies_are_kept_up_to_a_size(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo_store, "KEPT_BYTES", 250)
    store = UndoStore(desk.base / "undo")
    for number in range(5):
        (desk.root / "f").write_text(str(number) * 100)
        with store.changing(place(desk, store, f"c{number}"), ["f"]):
            (desk.root / "f").write_text("after")
    store.prune(time.time() + 2 * undo_store.SPARED_S)
    assert len(list((desk.base / "undo" / "blobs").iterdir())) == 2


def test_the_record_forgets_texts_before_ids_and_its_file_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "KEPT_CALLS", 10)
    monkeypatch.setattr(record, "KEPT_BYTES", 1000)
    kept = OutcomeRecord(tmp_path / "r")
    kept.begin("under way")
    for number in range(300):
        kept.begin(f"c{number}")
        kept.end(ToolResult(id=f"c{number}", outcome=Outcome.OK, text="x" * 200, changed=("f",)))
        assert (tmp_path / "r").stat().st_size < 30_000
    for found in (kept, OutcomeRecord(tmp_path / "r")):
        assert found.known("c0") is None
        old, new, lost = found.known("c295"), found.known("c299"), found.known("under way")
        assert old
        assert new
        assert lost
        assert (new.text, new.outcome) == ("x" * 200, Outcome.OK)
        assert "not kept" in (found.known("c291") or new).text
        assert lost.outcome is Outcome.UNKNOWN
