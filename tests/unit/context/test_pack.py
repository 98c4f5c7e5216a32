"""Packs: each role sees its part, the head is frozen, and nothing goes over its bound."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode, bounds
from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.conversation import Conversation, Topic
from roost.context.gate import Gate
from roost.context.messages import Call, Message, Role, assistant, system, tool, user
from roost.context.pack import Head, Packer
from roost.context.prefix import PrefixGuard
from roost.context.tokens import Estimate

HEAD = Head("You are Main.")


def packer(context: int = 4096, can: Capabilities | None = None, mode: CostMode = CostMode.SMART) -> Packer:
    """Return a packer with a counter in memory."""
    return Packer(bounds(mode, context, 256), Gate(MemoryBlobs(), "me", Estimate()), can or Capabilities())


async def test_main_has_summaries_turns_and_the_tail_last() -> None:
    topic = Topic(id="t", level=0, turns=(1, 2), summary="They greeted.")
    talk = Conversation(shown=(topic,)).begin(user("Hi"), assistant("Hello")).begin(user("What time is it?"))
    pack = await packer().main(talk, HEAD, tail="It is noon.")
    assert pack.messages[0] == system("You are Main.")
    assert "They greeted." in pack.messages[1].text
    assert pack.messages[-1].text == "What time is it?\n\nIt is noon."
    assert pack.reason == ""
    assert pack.tokens == sum(pack.parts.values())


async def test_the_router_sees_the_request_and_what_bears_on_it() -> None:
    oven = Topic(id="a", level=0, turns=(1,), summary="Bread bakes at 220.", terms={"bread": 1.0, "oven": 1.0})
    sea = Topic(id="b", level=0, turns=(2,), summary="Whales sing.", terms={"whales": 1.0})
    talk = Conversation(shown=(oven, sea)).begin(user("Thanks")).begin(user("How hot for bread?"))
    pack = await packer().router(talk, HEAD, "How hot for bread?")
    assert len(pack.messages) == 2
    assert "220" in pack.messages[1].text
    assert "Whales" not in pack.messages[1].text
    assert pack.messages[1].text.endswith("How hot for bread?")


async def test_the_specialist_sees_its_task_and_schemas_only() -> None:
    schema: JsonValue = {"type": "function", "function": {"name": "read", "parameters": {}}}
    work = [assistant("", Call(id="a", name="read")), tool("a", "text")]
    pack = await packer().specialist("Read a.txt", Head("Act.", (schema,)), work, facts="a.txt is small")
    assert [m.role for m in pack.messages] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL]
    assert pack.tools == (schema,)
    assert pack.work == tuple(work)
    assert pack.parts["tools"] > 0


async def test_results_too_long_are_shortened_and_can_be_had_again() -> None:
    packs = packer(2048)
    long = "\n".join(f"line {number}" for number in range(5000))
    pack = await packs.specialist("Read", HEAD, [assistant("", Call(id="a", name="read")), tool("a", long)])
    assert pack.tokens <= packs.bounds.prompt_tokens
    shown = pack.messages[-1].text
    assert "Shortened" in shown
    reference = "blob:" + shown.split("blob:")[1][:24]
    assert packs.gate.blobs.get("me", reference).decode() == long
    assert pack.reason == "trimmed"
    again = await packs.specialist("Read", HEAD, pack.work)
    assert again.work == pack.work, "what was shortened once is not shortened differently"


TEXT = st.integers(0, 6000).map(lambda n: "word " * n)
WORK = st.lists(TEXT, max_size=30)


@settings(max_examples=40, deadline=None)
@given(WORK, TEXT, st.sampled_from([1024, 2048, 8192]), st.sampled_from([Capabilities(), STRICTEST]))
async def test_no_pack_goes_over_its_bound_and_none_is_cut_in_silence(
    results: list[str], request: str, context: int, can: Capabilities
) -> None:
    packs = packer(context, can)
    work: list[Message] = []
    for number, result in enumerate(results):
        work += [assistant("", Call(id=f"c{number}", name="read")), tool(f"c{number}", result)]
    pack = await packs.specialist(request or "Go", HEAD, work)
    assert pack.tokens <= packs.bounds.prompt_tokens
    shown = "\n".join(message.text for message in pack.messages)
    if any(result.strip() and result.strip() not in shown for result in results):
        assert pack.events
        assert "Shortened" in shown or "Left out here" in shown


async def test_requests_in_a_row_begin_alike() -> None:
    packs, guard = packer(8192), PrefixGuard(strict=True)
    talk = Conversation()
    for number in range(12):
        talk = talk.begin(user(f"Question {number}"))
        pack = await packs.main(talk, HEAD, tail=f"It is {number} o'clock.")
        guard.check("main", pack.messages, pack.tools, tail=pack.tail, reason=pack.reason)
        talk = talk.go_on(assistant(f"Answer {number}"))
    assert guard.broken == []
