"""`roost worker` as a process, before a hub on a real socket: no model decides here, so every call is known."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from pydantic import JsonValue

from roost.agent.channel.desk import Desk as Workers
from roost.agent.sandbox.parent import Bubblewrap
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolRunner
from tests.support.agent_hub import Served, served
from tests.support.gateway import REPOSITORY
from tests.support.models import ScriptedModels
from tests.support.net import eventually, free_port
from tests.support.worker import Home, Running, worker
from tests.unit.agent.loop.test_turn import Desk, actions

pytestmark = pytest.mark.timeout(280)
needs_sandbox = pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine")


class Allowing:
    """A runner whose calls were all allowed."""

    def __init__(self, runner: ToolRunner) -> None:
        self.runner = runner
        self.tools = runner.tools

    async def run(self, call: ToolCall) -> ToolResult:
        return await self.runner.run(call.model_copy(update={"allowed": True}))


class Scene:
    """A hub, a user's home with one workspace, and calls with known ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.home = Home(folder / "home", f"http://127.0.0.1:{self.port}", "anna")
        self.project = folder / "home" / "project"
        self.project.mkdir(parents=True)
        self.home.run("workspace", "add", str(self.project), "--owner", "anna")

    @asynccontextmanager
    async def hub(self) -> AsyncIterator[Served]:
        """Run the hub; it waits a minute for a worker that was lost, as processes start slowly where much runs."""
        async with served(self.folder / "hub", Workers(poll_s=20, gone_s=60), self.port) as hub:
            yield hub

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Running]:
        """Run the worker, beside the event loop of the hub."""
        made = worker(self.home)
        running = await asyncio.to_thread(made.__enter__)
        try:
            yield running
        finally:
            await asyncio.to_thread(made.__exit__, None, None, None)

    async def call(self, hub: Served, number: str, name: str, owner: str = "anna", **given: JsonValue) -> ToolResult:
        call = ToolCall(id=number, name=name, arguments=given, session="s", workspace=None)
        return await hub.desk.runner(owner).run(call)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@needs_sandbox
async def test_files_and_programs_of_the_workspace_and_nothing_of_another_key(scene: Scene) -> None:
    secret = scene.home.folder / "secret.txt"
    secret.write_text("heliotrope")
    async with scene.hub() as hub, scene.worker() as running:
        made = await scene.call(hub, "1", "write", path="a/b.txt", content="alpha\n")
        assert (made.outcome, made.changed, (scene.project / "a/b.txt").read_text()) == (
            Outcome.OK,
            ("a/b.txt",),
            "alpha\n",
        )
        ran = await scene.call(hub, "2", "shell", command=f"cat a/b.txt; id -u; cat {secret}; echo beta > c.txt")
        assert "alpha" in ran.text
        assert "heliotrope" not in ran.text
        assert (scene.project / "c.txt").read_text() == "beta\n"
        for path in ("../secret.txt", str(secret), "/etc/passwd"):
            assert (await scene.call(hub, path, "read", path=path)).outcome is Outcome.REFUSED
        assert (await scene.call(hub, "3", "read", owner="bert", path="a/b.txt")).outcome is Outcome.REFUSED
        assert not [event for event in running.events("call") if event["id"] == "3"]
        log = running.log.read_text()
        assert "anna" in log
        assert "heliotrope" not in log
    assert running.process.returncode == 0


@needs_sandbox
async def test_a_worker_that_is_killed_in_a_call_says_afterwards_that_it_may_have_been_done(scene: Scene) -> None:
    async with scene.hub() as hub:
        async with scene.worker() as first:
            wanted = scene.call(hub, "slow", "shell", command="echo once >> ran.txt; sleep 100")
            running = asyncio.create_task(wanted)
            await eventually((scene.project / "ran.txt").exists, 60, "the command")
            first.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(first.process.wait, 30)
        async with scene.worker():  # it is asked again, finds the call in its record, and does not run it
            result = await running
            assert result.outcome is Outcome.UNKNOWN
            assert "may have been done" in result.text
            assert (await scene.call(hub, "next", "read", path="ran.txt")).text == "once\n"


@needs_sandbox
async def test_cancelling_ends_the_program(scene: Scene) -> None:
    async with scene.hub() as hub, scene.worker():
        loop = "while :; do echo x >> beats; sleep 0.05; done"
        running = asyncio.create_task(scene.call(hub, "beats", "shell", command=loop))
        beats = scene.project / "beats"
        await eventually(beats.exists, 60, "the command")
        running.cancel()
        assert (await scene.call(hub, "after", "list")).outcome is Outcome.OK
        sizes: list[int] = []

        def still() -> bool:
            sizes.append(beats.stat().st_size)
            return len(sizes) > 20 and len(set(sizes[-20:])) == 1

        await eventually(still, 60, "the command to be ended")


@needs_sandbox
async def test_tools_of_an_mcp_server_in_the_sandbox_are_called_by_the_hub(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOTROPE", "a variable of the user")
    (scene.project / "a.txt").write_text("alpha")
    (scene.home.folder / "secret.txt").write_text("heliotrope")
    read = [f"--read={path}" for path in {sys.prefix, sys.base_prefix, str(REPOSITORY)}]
    async with scene.hub() as hub:
        words = ["mcp", "add", "ex", "--env", f"PYTHONPATH={REPOSITORY}", "--env=ASKED=1", "--workspace=project", *read]
        program = [sys.executable, "-P", "-m", "tests.support.mcp_example"]
        added = await asyncio.to_thread(scene.home.run, *words, "--json", "--", *program)
        assert json.loads(added.stdout)[0]["environment"] == ["ASKED", "PYTHONPATH"]
        for _ in range(3):  # it waits half a minute for the server, which may start more slowly where much runs
            done = await asyncio.to_thread(partial(scene.home.run, "mcp", "test", "ex", "--json", check=False))
            tried = json.loads(done.stdout)
            if tried["ok"]:
                break
        assert tried["ok"], tried
        assert "mcp__ex__add" in [tool["name"] for tool in tried["tools"]]
        async with scene.worker():

            def offered() -> bool:
                return "mcp__ex__add" in {spec.name for spec in hub.desk.runner("anna").tools()}

            await eventually(offered, 120, "its tools")

            async def call(number: str, tool: str, **given: JsonValue) -> ToolResult:
                asked = ToolCall(id=number, name=f"mcp__ex__{tool}", arguments=given, session="s", allowed=True)
                return await hub.desk.runner("anna").run(asked)

            assert (await call("1", "add", first=20, second=22)).text == "42"
            assert "a.txt" in (await call("2", "look", path="/workspace")).text
            assert (await call("3", "put", path="/workspace/b.txt", text="x")).outcome is Outcome.FAILED
            for path in (str(scene.home.folder / "secret.txt"), str(scene.home.folder), "/etc/passwd"):
                hidden = await call(path, "look", path=path)
                assert "heliotrope" not in hidden.text
                assert hidden.outcome is Outcome.FAILED or "secret" not in hidden.text
            variables = (await call("4", "environment")).text
            assert "ASKED" in variables
            assert "HELIOTROPE" not in variables
            assert "ROOST_API_KEY" not in variables
            assert (await scene.call(hub, "5", "mcp__ex__add", owner="bert", first=1)).outcome is Outcome.REFUSED
            turn = Desk(ScriptedModels(router=[actions(("mcp__ex__add", {"first": 20, "second": 22}))]))
            metrics = await turn.take("Add 20 and 22", Allowing(hub.desk.runner("anna")))
            assert (metrics.run, metrics.finished, turn.outcomes) == (1, True, [Outcome.OK])
            assert "42" in "\n".join(message.text for message in turn.models.asks[-1][1].messages)
            assert (await call("6", "die")).outcome is Outcome.UNKNOWN
        removed = await asyncio.to_thread(scene.home.run, "mcp", "remove", "ex", "--json")
        assert json.loads(removed.stdout)["name"] == "ex"


@needs_sandbox
def test_that_a_part_of_proc_is_hidden_is_found_before_a_program_is_run() -> None:
    """As containers hide it: namespaces can be made then, and none gets a /proc of its own."""
    check = "from roost.agent.sandbox.parent import Bubblewrap; print(Bubblewrap().missing())"
    hidden = 'mount --bind /dev/null /proc/interrupts && exec $0 -P -c "$1"'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hidden, sys.executable, check]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "app")}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Can't mount proc" in said
    assert "has to show all of /proc" in said


async def test_it_comes_back_to_a_hub_that_was_started_anew_and_the_hub_does_not_wait_for_it(scene: Scene) -> None:
    async with scene.hub() as hub:
        made = worker(scene.home)
        running = await asyncio.to_thread(made.__enter__)
        await eventually(lambda: bool(hub.desk.of("anna")), 60, "the worker")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 18  # its question waits up to 20 s
    async with scene.hub() as hub:
        await eventually(lambda: bool(hub.desk.of("anna")), 60, "the worker to come back")
        (scene.project / "x").write_text("here")
        assert (await scene.call(hub, "1", "read", path="x")).text == "here"
        other = scene.project.parent / "second"
        other.mkdir()
        await asyncio.to_thread(scene.home.run, "workspace", "add", str(other))
        await eventually(lambda: len(hub.desk.of("anna")[0].announced.workspaces) == 2, 60, "the second workspace")
        assert "/workspace" in (await scene.call(hub, "2", "read", path="x")).text
        await asyncio.to_thread(made.__exit__, None, None, None)
        assert running.process.returncode == 0
        assert not hub.desk.of("anna")
