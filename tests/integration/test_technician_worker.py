"""A job through the hub: the folder of a real worker, its foreign tools, and what is known after a loss on the way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog
from roost.agent.permission.policy import Answer
from roost.agent.sandbox.parent import Bubblewrap
from roost.agent.technician.job import Call, Decision, Finish, Job, Phase, Verdict
from roost.agent.technician.journal import Journal
from roost.agent.technician.reach import HubRunner, Reach
from roost.agent.technician.technician import Technician
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolSpec
from roost.agent.tools.runner import LocalRunner
from roost.agent.tools.workspaces import Workspaces
from roost.durable.driver import Next
from roost.ops.errors import NOT_FOUND
from tests.integration.test_worker_process import Scene
from tests.support.agent_hub import Served
from tests.support.gateway import REPOSITORY
from tests.support.net import eventually
from tests.support.technician import cannot_tell

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine"),
]


class Mind:
    """Makes these calls one after the other, and is finished."""

    def __init__(self, *calls: tuple[str, dict[str, str | int]]) -> None:
        self.calls = calls
        self.seen: list[str] = []

    async def plan(self, _job: Job, tools: list[ToolSpec]) -> list[str]:
        self.seen = [tool.name for tool in tools]
        return ["do it"]

    async def decide(self, job: Job, _tools: list[ToolSpec]) -> Decision:
        if len(job.steps) < len(self.calls):
            tool, arguments = self.calls[len(job.steps)]
            return Call(why="it is wanted", tool=tool, arguments=dict(arguments))
        return Finish(answer="done")

    async def reflect(self, _job: Job, _tools: list[ToolSpec]) -> Verdict:
        return Verdict(reached=True)


class Work:
    """A technician with a journal, a folder of its own on this machine, and the hub."""

    def __init__(self, scene: Scene, hub: Served, mind: Mind) -> None:
        self.folder = scene.folder / "technician"
        self.folder.mkdir()
        self.journal = Journal(self.folder / "jobs.sqlite")
        self.own = scene.folder / "own"
        self.own.mkdir()
        named = Workspaces(self.folder / "workspaces.json")
        named.add(self.own, "anna")
        self.hub = HubRunner(hub.url, "anna", None, pauses_s=(0.2,) * 100)
        local = LocalRunner("anna", named, self.folder / "tools")
        audit = AuditLog(self.folder / "audit")
        self.technician = Technician(self.journal, mind, Reach(local, self.hub), audit, cannot_tell, self.hub)

    async def drive(self, job: str) -> Job:
        while await self.technician.advance(job) is Next.GO_ON:
            pass
        return self.journal.job(job)

    async def until(self, job: str, calls: Sequence[str]) -> None:
        """Advance to where the last of these calls is on its way, as far as this process knows."""
        while [step.call.name for step in self.journal.job(job).steps] != list(calls):
            await self.technician.advance(job)

    async def close(self) -> None:
        await self.hub.close()
        self.journal.close()


async def test_a_job_works_in_a_workers_folder_and_knows_after_a_loss_what_was_done(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    mind = Mind(("shell", {"command": "echo once >> ran.txt"}), ("read", {"path": "ran.txt"}))
    async with scene.hub() as hub, scene.worker():
        work = Work(scene, hub, mind)
        host = hub.desk.of("anna")[0].announced.host
        job = work.journal.add("anna", "run it", f"{host}/project").id
        await work.until(job, ["shell"])
        step = work.journal.job(job).open_step
        assert step
        # handed over, made, and its answer lost with this process: nothing of it is on this side's disk
        work.journal.started(job, 1)
        assert (await work.hub.run(step.call)).outcome is Outcome.OK
        ended = await work.drive(job)
        assert (ended.phase, [one.attempts for one in ended.steps]) == (Phase.DONE, [1, 1])
        assert (scene.project / "ran.txt").read_text() == "once\n"
        assert ended.steps[1].result
        assert ended.steps[1].result.text == "once\n"
        # handed over and never made, as far as anybody knows: it is asked, not done again
        job = work.journal.add("anna", "run it", f"{host}/project").id
        await work.until(job, ["shell"])
        work.journal.started(job, 1)
        asks = await work.drive(job)
        assert (asks.phase, "Was that done?" in asks.question) == (Phase.ASKING, True)
        assert (scene.project / "ran.txt").read_text() == "once\n"
        await work.close()


async def test_a_job_in_a_folder_here_has_foreign_tools_of_the_worker_and_asks_before_they_are_called(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    read = [f"--read={path}" for path in {sys.prefix, sys.base_prefix, str(REPOSITORY)}]
    program = [sys.executable, "-P", "-m", "tests.support.mcp_example"]
    words = ["mcp", "add", "ex", "--env", f"PYTHONPATH={REPOSITORY}", *read, "--", *program]
    mind = Mind(("mcp__ex__add", {"first": 20, "second": 22}), ("write", {"path": "a.txt", "content": "42"}))
    async with scene.hub() as hub:
        await asyncio.to_thread(scene.home.run, *words)
        await called_from_here(scene, hub, mind)


async def called_from_here(scene: Scene, hub: Served, mind: Mind) -> None:
    async with scene.worker():
        await eventually(
            lambda: "mcp__ex__add" in {spec.name for spec in hub.desk.runner("anna").tools()}, 120, "its tools"
        )
        work = Work(scene, hub, mind)
        job = work.journal.add("anna", "add", "own").id
        asks = await work.drive(job)
        assert {"mcp__ex__add", "write", "read"} <= set(mind.seen)
        assert asks.phase is Phase.ASKING
        assert "May mcp__ex__add be called" in asks.question
        work.journal.reply(job, "anna", work.journal.job(job).question_id, Answer.ALWAYS)
        ended = await work.drive(job)
        assert ended.phase is Phase.DONE
        result: ToolResult | None = ended.steps[0].result
        assert result
        assert result.text == "42"
        assert (work.own / "a.txt").read_text() == "42"  # here, not at the worker
        assert not (scene.project / "a.txt").exists()
        assert [one.tool for one in hub.hub.agents.allowed.of("anna")] == ["mcp__ex__add"]
        again = await work.drive(work.journal.add("anna", "add", "own").id)
        assert again.phase is Phase.DONE  # it was allowed for good, at the hub
        kept = hub.hub.agents.allowed.of("anna")
        await asyncio.to_thread(scene.home.run, "allowed", "remove", "mcp__ex__add")
        assert hub.hub.agents.allowed.of("anna") == []
        await asyncio.to_thread(scene.home.run, "allowed", "add", "mcp__ex__add")
        assert [one.mark for one in hub.hub.agents.allowed.of("anna")] == [one.mark for one in kept]
        refused = await asyncio.to_thread(scene.home.run, "allowed", "add", "shell", check=False)
        assert refused.returncode == NOT_FOUND
        lost = ToolCall(id="never", name="mcp__ex__add", arguments={"first": 1}, session="s")
        assert (await work.hub.recall(lost)).outcome is Outcome.UNKNOWN
        await work.close()
