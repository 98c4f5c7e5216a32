"""A technician in a process that dies between any two of its steps. Its model is scripted, its tool writes a file.

Every effect of a tool is a line in FOLDER/effects, so that one made twice shows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from roost.agent.audit.log import AuditLog
from roost.agent.permission.policy import Answer
from roost.agent.technician.job import Call, Decision, Finish, Job, Phase, Verdict
from roost.agent.technician.journal import Journal
from roost.agent.technician.technician import KIND, Finding, Technician, ToolsOf
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.durable.driver import Driver, Next
from roost.ops.errors import RoostError

OWNER = "alice"
CALLS = 2
MODES = ("blind", "repeatable", "looking", "remembering", "asking")
"""`asking`: the tool is a foreign one, and the user says yes each time that they are asked."""


def tools_of_all(runner: ToolRunner) -> ToolsOf:
    """Return what gives every job the same tools."""

    async def of(_job: Job) -> ToolRunner:
        return runner

    return of


async def cannot_tell(_call: ToolCall) -> Finding:
    """Stand for tools of which no look shows whether they were called."""
    return Finding.UNCLEAR


class NothingAllowed:
    """Nothing is allowed for good, and nothing can be."""

    async def has(self, _mark: str) -> bool:
        """Say no."""
        return False

    async def add(self, _tool: str, _mark: str) -> None:
        """Keep nothing."""
        raise RoostError("Nothing can be kept here.")


class ScriptedMind:
    """Wants `CALLS` lines written, then is finished; at first it forgets one, and reflection finds it."""

    async def plan(self, _job: Job, _tools: list[ToolSpec]) -> list[str]:
        return ["write lines"]

    async def decide(self, job: Job, _tools: list[ToolSpec]) -> Decision:
        wanted = CALLS if job.notes else CALLS - 1
        if len(job.steps) < wanted:
            return Call(why="a line is missing", tool="write_line", arguments={"line": f"line {len(job.steps) + 1}"})
        return Finish(answer=f"{wanted} lines are written")

    async def reflect(self, job: Job, _tools: list[ToolSpec]) -> Verdict:
        return Verdict(reached=len(job.steps) >= CALLS, missing="a line")


class FileTool:
    """Writes lines into a file, and makes the place between effect and record as one where the process may die."""

    def __init__(self, folder: Path, *, repeatable: bool, foreign: bool, die: Dying) -> None:
        self.effects = folder / "effects"
        self.spec = ToolSpec(
            name="write_line", description="Writes a line.", parameters={},
            permission=Permission.FOREIGN if foreign else Permission.WRITE, safe_to_repeat=repeatable,
        )  # fmt: skip
        self._die = die

    def tools(self) -> Sequence[ToolSpec]:
        return [self.spec]

    async def run(self, call: ToolCall) -> ToolResult:
        self._die("reached")
        with self.effects.open("a") as stream:
            stream.write(f"{call.arguments['line']}\n")
        self._die("effective")
        return ToolResult(id=call.id, outcome=Outcome.OK, text="written")

    async def look(self, call: ToolCall) -> Finding:
        made = self.effects.exists() and str(call.arguments["line"]) in self.effects.read_text().splitlines()
        return Finding.MADE if made else Finding.NOT_MADE


class RememberingTool(FileTool):
    """Keeps what came of a call in a file by its id, begun and ended, as a worker does."""

    async def run(self, call: ToolCall) -> ToolResult:
        begun = self.effects.with_name(f"begun-{call.id.replace('/', '_')}")
        begun.touch()
        result = await super().run(call)
        begun.write_text(result.model_dump_json())
        return result

    async def recall(self, call: ToolCall) -> ToolResult | None:
        begun = self.effects.with_name(f"begun-{call.id.replace('/', '_')}")
        if not begun.exists():
            return None
        if text := begun.read_text():
            return ToolResult.model_validate_json(text)
        return ToolResult(id=call.id, outcome=Outcome.UNKNOWN, text="")


class Dying:
    """Kills the process at its n-th place; counts the places otherwise."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.places = kill_at, 0

    def __call__(self, _place: str) -> None:
        self.places += 1
        if self.places == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def child(folder: Path, mode: str, kill_at: int) -> None:
    """Be that process: do the job, or go on with it, until it rests.

    Leaves the phase and the number of places in FOLDER/said, and ends without tidying up. With `kill_at` 0 it lives.
    """
    die = Dying(kill_at)
    kind = RememberingTool if mode == "remembering" else FileTool
    tool = kind(folder, repeatable=mode == "repeatable", foreign=mode == "asking", die=die)
    journal, rested = Journal(folder / "jobs.sqlite"), threading.Event()
    inspect = tool.look if mode == "looking" else cannot_tell
    audit = AuditLog(folder / "audit")
    technician = Technician(journal, ScriptedMind(), tools_of_all(tool), audit, inspect, NothingAllowed(), die)

    def advance(job: str) -> Next:
        said = asyncio.run(technician.advance(job))
        if said == Next.REST:
            rested.set()
        return said

    driver = Driver(folder, {KIND: advance})
    driver.launch()
    jobs = journal.jobs(OWNER)
    if not jobs:
        jobs = [journal.add(OWNER, "lines", None)]
        die("added")
    found = jobs[0]
    driver.ensure(KIND, journal.under_way())
    if found.phase == Phase.ASKING and found.reply:
        driver.start(KIND, found.id)
    if not found.phase.over and (found.phase != Phase.ASKING or found.reply):
        assert rested.wait(60)
    while (job := journal.job(found.id)).phase == Phase.ASKING and job.replies == tuple(Answer):
        rested.clear()
        journal.reply(job.id, OWNER, job.question_id, Answer.YES)
        die("replied")
        driver.start(KIND, job.id)
        assert rested.wait(60)
    (folder / "said").write_text(f"{journal.job(found.id).phase} {die.places}")
    os._exit(0)


def empty(folder: Path) -> None:
    """Make the databases that a hub has before its first job."""
    driver = Driver(folder, {})
    driver.launch()
    driver.close()
