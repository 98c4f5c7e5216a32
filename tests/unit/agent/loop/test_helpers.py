"""Sub-agents, the hub's own tools, profiles of families, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue
from structlog.testing import capture_logs

from roost.agent.audit.log import AuditLog
from roost.agent.delegation import AgentRole, Candidate
from roost.agent.guards import Budget
from roost.agent.hub_tools import SessionRunner
from roost.agent.measures import Measures
from roost.agent.memory.memory import Memory
from roost.agent.memory.store import FactStore
from roost.agent.memory.tools import MemoryTools
from roost.agent.models import Ask, Hear, Reply, Usage
from roost.agent.profiles import profile_of
from roost.agent.sessions.records import MessageBody
from roost.agent.sessions.store import FileSessionStore
from roost.agent.subagents import Limited, Means, SubAgents
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec
from roost.agent.turn_metrics import RoleUse, TurnMetrics
from roost.agent.work import Told
from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode, bounds
from roost.context.gate import Gate
from roost.context.pack import Packer
from roost.context.tokens import Estimate
from tests.support.models import Answer, Files, ScriptedModels
from tests.support.net import eventually
from tests.unit.agent.memory.world import NoEmbedder

URL: dict[str, JsonValue] = {
    "type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"], "additionalProperties": False
}  # fmt: skip


class Web(Files):
    """Files and a page."""

    def tools(self) -> Sequence[ToolSpec]:
        fetch = ToolSpec(
            name="web_fetch", description="Reads a page.", parameters=dict(URL), permission=Permission.NETWORK
        )
        return [*super().tools(), fetch]

    async def run(self, call: ToolCall) -> ToolResult:
        if call.name == "web_fetch":
            self.calls.append(call)
            return ToolResult(id=call.id, outcome=Outcome.OK, text="The page says Lyra.")
        return await super().run(call)


class Waiting(ScriptedModels):
    """Models that answer once they may."""

    def __init__(self, release: asyncio.Event, main: list[Answer] | None = None) -> None:
        super().__init__(main=main or [])
        self._release = release

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        await self._release.wait()
        return await super().ask(ask, hear)


def call_of(name: str, **arguments: object) -> ToolCall:
    return ToolCall.model_validate({"id": "t1-1", "name": name, "arguments": arguments, "session": "s1"})


def gate() -> Gate:
    return Gate(MemoryBlobs(), "alice", Estimate())


async def _silent(_told: Told) -> None:
    return None


def means(models: ScriptedModels, web: Web) -> Means:
    return Means(
        models, Candidate("scripted", context=8192), Packer(bounds(CostMode.SMART, 8192), gate()), web, _silent
    )


FETCH = '{"tool": "web_fetch", "arguments": {"url": "https://a.example/"}}'


def test_a_helper_works_with_a_context_of_its_own_and_reports() -> None:
    models = ScriptedModels(
        call=[FETCH, '{"done": true}'], thought=["I look.", "Enough.", "Lyra, by https://a.example/"]
    )
    models.main = ["Lyra, by https://a.example/"]
    web = Web()
    helpers = SubAgents()
    result = asyncio.run(helpers.run(call_of("researcher", task="Who won? See https://a.example/"), means(models, web)))
    assert result.outcome == Outcome.OK
    assert "Lyra" in result.text
    assert [call.name for call in web.calls] == ["web_fetch"]
    assert helpers.status() == ""


class Faulty(ScriptedModels):
    """Models of which asking is a fault."""

    async def ask(self, ask: Ask, hear: Hear | None = None) -> Reply:
        del ask, hear
        raise ValueError("ours")


def test_a_fault_of_ours_in_a_helper_is_told_and_stands_in_the_log() -> None:
    with capture_logs() as logs:
        result = asyncio.run(SubAgents().run(call_of("researcher", task="Look"), means(Faulty(), Web())))
    assert (result.outcome, "ValueError" in result.text) == (Outcome.FAILED, True)
    (line,) = [one for one in logs if one["event"] == "helper_failed"]
    assert str(line["exc_info"]) == "ours"


async def test_a_helper_that_is_ended_while_it_is_waited_for_says_so() -> None:
    helpers, never = SubAgents(), asyncio.Event()
    waiting = asyncio.create_task(helpers.run(call_of("researcher", task="Look"), means(Waiting(never), Web())))
    await eventually(lambda: helpers.pending, 10, "the helper")
    await helpers.cancel()
    assert (await waiting).outcome is Outcome.CANCELLED


def test_a_helper_may_not_change_anything() -> None:
    limited = Limited(Web({"a": "x"}))
    assert {spec.name for spec in limited.tools()} == {"read", "list", "web_fetch"}
    assert asyncio.run(limited.run(call_of("write", path="a", content="y"))).outcome == Outcome.REFUSED


def test_a_slow_helper_goes_on_beside_is_told_of_and_reports_once() -> None:
    async def scene() -> None:
        release = asyncio.Event()

        helpers = SubAgents(patience_s=0.0)
        result = await helpers.run(
            call_of("researcher", task="Look around"), means(Waiting(release, main=["Found."]), Web())
        )
        assert "still being worked on" in result.text
        assert "[Helper t1-1 works since" in helpers.status()
        release.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert helpers.status().startswith("[Report of helper t1-1 on: Look around]")
        assert helpers.status() == ""

    asyncio.run(scene())


def test_the_time_of_the_user_is_no_time_of_a_helper() -> None:
    async def scene() -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = replace(means(Waiting(release, main=["Found."]), Web()), waited_s=lambda: loop.time() - began)
        loop.call_later(0.2, release.set)  # the user answers
        result = await SubAgents(patience_s=0.05).run(call_of("researcher", task="Look around"), asked)
        assert result.text.startswith("Found.")

    asyncio.run(scene())


def test_a_cancelled_turn_ends_its_helper() -> None:
    async def scene() -> None:
        helpers = SubAgents()
        work = asyncio.create_task(helpers.run(call_of("researcher", task="x"), means(Waiting(asyncio.Event()), Web())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert helpers.status() == ""

    asyncio.run(scene())


def test_a_share_of_a_budget_is_smaller_and_never_nothing() -> None:
    assert Budget(12, 600, 1000).share(0.5) == Budget(6, 300, 500)
    assert Budget(1, 1, 1).share(0.01).rounds == 1


def test_the_hub_has_tools_of_its_own(tmp_path: Path) -> None:
    store = FileSessionStore(tmp_path)
    session = store.create("alice").id
    store.append("alice", session, MessageBody(role="user", text="The sourdough recipe takes 300 g of rye."))
    held = gate()
    memory = Memory(FactStore(tmp_path), AuditLog(tmp_path))

    def of(owner: str) -> SessionRunner:
        return SessionRunner(
            Web(), held, SubAgents(), [MemoryTools(memory, store, NoEmbedder(), owner, "s1", lambda: None, "")]
        )

    runner = of("alice")
    assert {"remember", "recall", "forget", "read_back"} <= {spec.name for spec in runner.tools()}
    assert "researcher" not in {spec.name for spec in runner.tools()}
    assert "rye" in asyncio.run(runner.run(call_of("recall", words="sourdough"))).text
    nothing = asyncio.run(of("bob").run(call_of("recall", words="sourdough"))).text
    assert nothing == "Nothing is known about it, and nothing was said."
    reference = held.blobs.put("alice", b"0123456789")
    assert asyncio.run(runner.run(call_of("read_back", reference=reference, start=3, length=4))).text == "3456"
    gone = asyncio.run(runner.run(call_of("read_back", reference="blob:" + "0" * 24)))
    assert gone.outcome == Outcome.FAILED
    assert asyncio.run(runner.run(call_of("list"))).outcome == Outcome.OK


@pytest.mark.parametrize(
    ("name", "family", "flags"),
    [
        ("qwen3-8b", "qwen3", (True, True)), ("Qwen3-4B-Instruct-2507", "qwen", (True, False)),
        ("qwen3-coder-30b", "qwen", (True, False)), ("functiongemma-270m", "functiongemma", (True, False)),
        ("hermes-3-llama-3.1-8b", "hermes", (True, False)), ("llama-3.2-3b", "llama3", (True, False)),
        ("smollm2-135m-instruct", "unknown", (False, False)), ("", "unknown", (False, False)),
    ],
)  # fmt: skip
def test_families_are_known_by_their_names(name: str, family: str, flags: tuple[bool, bool]) -> None:
    found = profile_of(name)
    assert (found.family, found.native_tools, found.thinks) == (family, *flags)


def test_turns_are_counted() -> None:
    measures = Measures()
    turn = TurnMetrics(
        mode="trio", preflight="fired: url", routed_by="words", asked=2, run=1, finished=True, seconds=0.3
    )
    turn.roles[AgentRole.MAIN] = RoleUse("m", Usage(100, 20, 80), 0.2)
    measures.count(turn)
    text = measures.text().decode()
    assert 'roost_agent_turns_total{ended="finished",mode="trio"} 1.0' in text
    assert 'roost_agent_preflights_total{by="words",result="fired"} 1.0' in text
    assert 'roost_agent_tokens_total{direction="cached",model="m",role="main"} 80.0' in text
    assert 'roost_agent_tool_calls_total{result="asked"} 2.0' in text
    assert 'roost_agent_turn_seconds_bucket{le="0.5",mode="trio"} 1.0' in text
