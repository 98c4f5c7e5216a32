"""The technician's mind with scripted models: what it asks, what it believes, and that it always comes to an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from roost.agent.audit.log import AuditLog
from roost.agent.delegation import Candidate
from roost.agent.models import Ask, Hear, Reply
from roost.agent.technician.job import MOST_CALLS, Call, CallState, Finish, Job, Phase, Step
from roost.agent.technician.journal import Journal
from roost.agent.technician.look import edit_shows
from roost.agent.technician.mind import CORRECTIONS, ModelMind, decision_schema
from roost.agent.technician.technician import Finding, Technician
from roost.agent.tool import Outcome, ToolCall, ToolResult
from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode, bounds
from roost.context.gate import Gate
from roost.context.pack import Packer
from roost.context.tokens import Estimate
from roost.durable.driver import Next
from roost.ops.errors import RoostError
from tests.support.models import Files
from tests.support.technician import NothingAllowed, cannot_tell, tools_of_all

PACKER = Packer(bounds(CostMode.SMART, 4096), Gate(MemoryBlobs(), "alice", Estimate()))
READ = '{"why": "to see", "tool": "read", "arguments": {"path": "a.txt"}}'
OVER = '{"finish": true, "reached": true, "answer": "It says alpha."}'
ANYTHING = [
    READ, OVER, "", "null", '{"tool": 1}', '{"steps": ["x"]}', '{"reached": true, "missing": "x"}',
    '{"reached": false, "missing": "x"}', '{"why": "", "tool": "list", "arguments": {}}',
    '{"tool": "forbidden", "arguments": {}}', '{"finish": true}',
]  # fmt: skip


class Says:
    """A model that says one thing after another, the last one again and again."""

    def __init__(self, *texts: str | RoostError) -> None:
        self.texts = list(texts)
        self.asks: list[Ask] = []

    async def candidates(self) -> list[Candidate]:
        return [Candidate("m", context=4096)]

    async def ask(self, ask: Ask, _hear: Hear | None = None) -> Reply:
        self.asks.append(ask)
        said = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(said, RoostError):
            raise said
        return Reply(said)


def mind(*texts: str | RoostError, pauses: Sequence[float] = ()) -> tuple[ModelMind, Says]:
    models = Says(*texts)
    return ModelMind(models, Candidate("m", context=4096), PACKER, pauses), models


def job(*steps: tuple[str, dict[str, JsonValue], Outcome, str], **more: object) -> Job:
    made = tuple(
        Step(
            number=number, why="", state=CallState.ENDED,
            call=ToolCall(id=f"j-{number}", name=tool, arguments=arguments, session="j"),
            result=ToolResult(id=f"j-{number}", outcome=outcome, text=text),
        )
        for number, (tool, arguments, outcome, text) in enumerate(steps, 1)
    )  # fmt: skip
    return Job.model_validate({"id": "j", "owner": "alice", "goal": "Read a.txt", "steps": made, **more})


TOOLS = list(Files().tools())


async def test_a_plan_is_a_list_of_steps() -> None:
    one, models = mind("nonsense", '<think>hm</think>{"steps": ["read it", " "]}')
    assert await one.plan(job(), TOOLS) == ["read it"]
    assert [bool(ask.schema) for ask in models.asks] == [True] * 2
    assert "That was wrong" in models.asks[-1].messages[-1].text


async def test_a_decision_is_a_call_or_the_end() -> None:
    assert await mind(READ)[0].decide(job(), TOOLS) == Call(why="to see", tool="read", arguments={"path": "a.txt"})
    assert await mind(OVER)[0].decide(job(), TOOLS) == Finish(answer="It says alpha.")
    assert await mind('{"finish": true, "reached": "yes", "answer": "x"}')[0].decide(job(), TOOLS) == Finish(
        answer="x", reached=False
    )
    one, models = mind('{"tool": "remove", "arguments": {}}', READ)
    assert isinstance(await one.decide(job(), TOOLS), Call)
    assert "There is no tool 'remove'" in models.asks[1].messages[-1].text


async def test_it_sees_what_was_done() -> None:
    one, models = mind(OVER)
    await one.decide(job(("read", {"path": "a.txt"}, Outcome.OK, "alpha"), plan=("read it",), notes=("b.txt",)), TOOLS)
    seen = "\n".join(message.text for message in models.asks[0].messages)
    for wanted in ("Goal: Read a.txt", "1. read it", "Still missing: b.txt", "alpha"):
        assert wanted in seen


async def test_the_same_call_again_is_not_made() -> None:
    done = ("read", {"path": "a.txt"}, Outcome.OK, "alpha")
    one, models = mind(READ)
    with pytest.raises(RoostError, match="nothing that can be used"):
        await one.decide(job(done), TOOLS)  # type: ignore[arg-type]
    assert len(models.asks) == CORRECTIONS
    failed = ("read", {"path": "b.txt"}, Outcome.FAILED, "no")
    with pytest.raises(RoostError, match="again and again"):
        await mind(READ)[0].decide(job(failed, failed, failed), TOOLS)  # type: ignore[arg-type]


async def test_receipts_overrule_what_is_said() -> None:
    one, models = mind('{"reached": true, "missing": ""}')
    found = await one.reflect(job(("list", {}, Outcome.OK, "a.txt"), answer="I read it."), TOOLS)
    assert (found.reached, found.missing) == (False, "a.txt was not used")
    assert models.asks == []
    done = job(("read", {"path": "a.txt"}, Outcome.OK, "alpha"), answer="It says alpha.")
    assert (await one.reflect(done, TOOLS)).reached
    assert (await mind('{"reached": false, "missing": ""}')[0].reflect(done, TOOLS)).missing
    with pytest.raises(RoostError):
        await mind('{"reached": "yes"}')[0].reflect(done, TOOLS)


async def test_a_model_that_is_started_anew_is_waited_for() -> None:
    one, models = mind(RoostError("down"), RoostError("down"), OVER, pauses=(0.0, 0.0))
    assert isinstance(await one.decide(job(), TOOLS), Finish)
    assert len(models.asks) == 3
    with pytest.raises(RoostError, match="down"):
        await mind(RoostError("down"), pauses=(0.0,))[0].plan(job(), TOOLS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(ANYTHING), min_size=1, max_size=40))
def test_whatever_a_model_says_a_job_ends(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder: Path = tmp_path_factory.mktemp("job")
    journal, files = Journal(folder / "jobs.sqlite"), Files({"a.txt": "alpha"})
    audit = AuditLog(folder / "audit")
    technician = Technician(journal, mind(*texts)[0], tools_of_all(files), audit, cannot_tell, NothingAllowed())
    made = journal.add("alice", "Read a.txt", None).id
    for _ in range(10 * MOST_CALLS):
        if asyncio.run(technician.advance(made)) == Next.REST:
            break
    ended = journal.job(made)
    journal.close()
    assert ended.phase in {Phase.DONE, Phase.FAILED}
    assert ended.answer
    if ended.phase is Phase.DONE:
        assert any(call.arguments == {"path": "a.txt"} for call in files.calls)


def test_the_schema_has_each_tool_and_the_end() -> None:
    variants = decision_schema(TOOLS)["anyOf"]
    assert isinstance(variants, list)
    assert len(variants) == len(TOOLS) + 1
    assert '"const": "read"' in json.dumps(variants)


@pytest.mark.parametrize(
    ("text", "search", "replace", "finding"),
    [
        ("a new b", "old", "new", Finding.MADE), ("a old b", "old", "new", Finding.NOT_MADE),
        ("a old new b", "old", "new", Finding.UNCLEAR), ("a b", "old", "new", Finding.UNCLEAR),
        ("a b", "old", "", Finding.UNCLEAR), ("a old b", "old", "", Finding.UNCLEAR),
        ("older", "old", "older", Finding.UNCLEAR), ("x", "", "x", Finding.UNCLEAR),
    ],
)  # fmt: skip
def test_what_a_file_says_of_an_edit(text: str, search: str, replace: str, finding: Finding) -> None:
    assert edit_shows(text, search, replace) is finding
