"""Calls that are cancelled, run out of time, or meet a full disk: what is recorded is what happened."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from roost.agent.sandbox.guards import Limits
from roost.agent.sandbox.parent import Ran
from roost.agent.tool import Outcome, ToolCall, ToolResult
from roost.agent.tools.beneath import Beneath
from roost.agent.tools.record import Line, OutcomeRecord
from roost.agent.tools.runner import LocalRunner, standard_tools
from roost.agent.tools.undo_store import UndoStore
from roost.agent.tools.workspaces import Workspaces
from tests.support.net import eventually
from tests.unit.agent.tools.test_local_runner import Desk, Scripted

FILES = 40


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class Held:
    """A method that waits in its thread until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.begun, self._go = threading.Event(), threading.Event()
        real: Callable[..., object] = getattr(owner, name)

        def held(*given: object, **named: object) -> object:
            self.begun.set()
            assert self._go.wait(20)
            return real(*given, **named)

        monkeypatch.setattr(owner, name, held)

    def release(self) -> None:
        self._go.set()


async def cancelled_in(held: Held, running: asyncio.Task[ToolResult]) -> None:
    """Cancel a call while its thread waits; then let the thread go."""
    await eventually(held.begun.is_set, 10, "the thread")
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=0.05)
    assert not done, "it did not wait for its thread"
    held.release()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancelled_write_is_recorded_as_done_and_can_be_undone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk.root / "f").write_text("old")
    held = Held(monkeypatch, Beneath, "write")
    call = ToolCall(id="w", name="write", arguments={"path": "f", "content": "new"}, session="s", workspace="project")
    await cancelled_in(held, asyncio.create_task(desk.runner.run(call)))
    assert (desk.root / "f").read_text() == "new"
    for runner in (desk.runner, LocalRunner("anna", desk.workspaces, desk.base / "state", [])):
        known = await runner.run(call)
        assert (known.outcome, known.changed) == (Outcome.OK, ("f",))
    assert (await desk.call("undo")).outcome is Outcome.OK
    assert (desk.root / "f").read_text() == "old"


async def test_a_cancelled_undo_reaches_no_other_workspace_and_what_it_left_can_be_undone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = desk.base / "other"
    other.mkdir()
    desk.workspaces.add(other, "anna")
    for number in range(FILES):
        (desk.root / f"f{number:02}").write_text("old")
    desk.sandbox.files = {f"f{number:02}": "new" for number in range(FILES)}
    await desk.call("shell", command="make")
    held = Held(monkeypatch, UndoStore, "_put_back")
    undo = ToolCall(id="u", name="undo", arguments={}, session="s", workspace="project")
    running = asyncio.create_task(desk.runner.run(undo))
    await eventually(held.begun.is_set, 10, "the thread")
    running.cancel()
    read = ToolCall(id="r", name="search", arguments={"pattern": "x"}, session="s", workspace="other")
    await desk.runner.run(read)
    held.release()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(other.iterdir()) == []
    first = sum(1 for file in desk.root.iterdir() if file.read_text() == "old")
    assert 0 < first < FILES, "it ends between two files"
    assert f"{FILES - first}" in (await desk.runner.run(undo)).text
    again = await desk.call("undo")
    assert len(again.changed) == FILES - first
    assert {file.read_text() for file in desk.root.iterdir()} == {"old"}


async def test_an_undo_that_a_disk_stopped_is_not_marked_as_undone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.root / "f").write_text("old")
    await desk.call("write", path="f", content="new")
    real = Beneath.write

    def full(*_given: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Beneath, "write", full)
    failed = await desk.call("undo")
    assert failed.outcome is Outcome.FAILED
    assert "No space left" in failed.text
    monkeypatch.setattr(Beneath, "write", real)
    assert (await desk.call("undo")).changed == ("f",)
    assert (desk.root / "f").read_text() == "old"


async def test_a_closed_workspace_is_reached_by_no_number_that_is_used_again(desk: Desk) -> None:
    files = Beneath(desk.root)
    files.close()
    handles = [os.open(desk.base, os.O_RDONLY) for _ in range(20)]
    try:
        with pytest.raises(OSError, match="descriptor"):
            files.write("stray", b"x")
    finally:
        for handle in handles:
            os.close(handle)
    assert not (desk.base / "stray").exists()


class Endless(Scripted):
    """A program that changes a file and runs on."""

    def __init__(self) -> None:
        super().__init__({"f": "half"})
        self.begun = asyncio.Event()

    async def run(
        self, program: Sequence[str], root: Path, limits: Limits, *, kept: Sequence[str], hidden: Sequence[str]
    ) -> Ran:
        ran = await super().run(program, root, limits, kept=kept, hidden=hidden)
        self.begun.set()
        await asyncio.Event().wait()
        return ran


async def test_a_program_that_is_ended_is_recorded_as_unknown_with_what_it_changed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    box = Endless()
    desk.runner = LocalRunner("anna", desk.workspaces, tmp_path / "state", standard_tools(box))
    call = ToolCall(id="x", name="shell", arguments={"command": "make"}, session="s", workspace="project")
    running = asyncio.create_task(desk.runner.run(call))
    await box.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    known = await desk.runner.run(call)
    assert (known.outcome, known.changed) == (Outcome.UNKNOWN, ("f",))
    assert (await desk.call("undo")).changed == ("f",)


async def test_a_cancelled_search_ends_soon_and_was_cancelled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(FILES):
        (desk.root / f"f{number:02}").write_text("x")
    held = Held(monkeypatch, Beneath, "read")
    call = ToolCall(id="r", name="search", arguments={"pattern": "x"}, session="s", workspace="project")
    await cancelled_in(held, asyncio.create_task(desk.runner.run(call)))
    assert (await desk.runner.run(call)).outcome is Outcome.CANCELLED


async def test_a_call_that_cannot_be_noted_is_refused_and_its_id_is_free(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    call = ToolCall(id="w", name="write", arguments={"path": "f", "content": "new"}, session="s", workspace="project")
    with monkeypatch.context() as patched:
        patched.setattr(OutcomeRecord, "_append", full)
        refused = await asyncio.wait_for(desk.runner.run(call), 5)
        again = await asyncio.wait_for(desk.runner.run(call), 5)
    assert refused.outcome is again.outcome is Outcome.REFUSED
    assert "nothing was done" in refused.text
    assert not (desk.root / "f").exists()
    assert (await desk.runner.run(call)).outcome is Outcome.OK


async def test_a_call_whose_end_cannot_be_noted_is_answered_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OutcomeRecord._append

    def second(record: OutcomeRecord, line: Line) -> None:
        if line.result:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(record, line)

    monkeypatch.setattr(OutcomeRecord, "_append", second)
    call = ToolCall(id="w", name="write", arguments={"path": "f", "content": "new"}, session="s", workspace="project")
    for _ in range(2):
        assert (await asyncio.wait_for(desk.runner.run(call), 5)).outcome is Outcome.OK
    after = LocalRunner("anna", Workspaces(desk.base / "workspaces.json"), desk.base / "state", [])
    assert (await after.run(call)).outcome is Outcome.UNKNOWN
