"""The two ways to finish a scenario: Roost's turn, and the loop that most agents are."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import JsonValue

from bench.harness.scenarios import Scenario
from bench.harness.simulated import CONTEXT, TooManyError, TooMuchError
from bench.harness.world import World
from roost.agent.delegation import AgentRole, delegate
from roost.agent.models import Ask, Models
from roost.agent.sessions.records import Body, MessageBody
from roost.agent.tool import ToolCall
from roost.agent.turn import MAIN_SYSTEM, Setting, take_turn
from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode, bounds
from roost.context.gate import Gate
from roost.context.keeper import Keeper, Slot
from roost.context.messages import Message, assistant, system, tool, user
from roost.context.pack import Head, Packer
from roost.context.summarise import Extractive
from roost.context.tokens import Estimate, TokenCounter
from roost.ops.errors import RoostError

PLAIN_ROUNDS = 25
DENIAL = "could not"
"""How the simulated models say that something was not done."""


@dataclass(frozen=True)
class Ended:
    """How it ended: what was answered, whether that claims success, and why it did not end well."""

    answer: str
    claims: bool
    fault: str = ""


async def harnessed(models: Models, scenario: Scenario, world: World, counter: TokenCounter | None = None) -> Ended:
    """Take a turn as the product does; without a `counter`, with everything but the network."""
    delegation = delegate(await models.candidates())
    counter, blobs = counter or Estimate(), MemoryBlobs()
    context = delegation[AgentRole.MAIN].context or CONTEXT
    keeper = Keeper(
        owner="bench", slot=Slot(context, counter), mode=lambda: CostMode.SMART, head=Head(MAIN_SYSTEM), blobs=blobs,
        summariser=Extractive(counter),
    )  # fmt: skip
    packer = Packer(bounds(CostMode.SMART, context), Gate(blobs, "bench", counter))
    said: list[str] = []

    async def record(*bodies: Body) -> None:
        said.extend(body.text for body in bodies if isinstance(body, MessageBody) and body.role == "assistant")

    async def emit(_event: dict[str, JsonValue]) -> None:
        return None

    setting = Setting(
        session="bench", models=models, delegation=delegation, runner=world, keeper=keeper, router_packer=packer,
        specialist_packer=packer, record=record, emit=emit,
    )  # fmt: skip
    try:
        metrics = await take_turn(setting, scenario.request, "t1")
    except TooManyError:
        return Ended("", claims=False, fault="endless")
    except RoostError as error:
        return Ended(error.message, claims=False, fault="refused")
    answer = "\n".join(said)
    return Ended(answer, claims=metrics.finished and DENIAL not in answer, fault=metrics.stop)


async def plain(models: Models, scenario: Scenario, world: World, model: str = "sim-alone") -> Ended:
    """Ask, run what is called, tell the results, ask again, until an answer has no calls. Errors are told, too."""
    messages: list[Message] = [system("You are a helpful assistant with tools."), user(scenario.request)]
    known = {spec.name for spec in world.tools()}
    for _ in range(PLAIN_ROUNDS):
        try:
            reply = await models.ask(Ask(model, messages, 1024, tools=tuple(world.tools())))
        except TooMuchError:
            return Ended("", claims=False, fault="overflow")
        except RoostError as error:
            return Ended(error.message, claims=False, fault="refused")
        if not reply.calls:
            return Ended(reply.text, claims=DENIAL not in reply.text)
        messages.append(assistant(reply.text, *reply.calls))
        results = [await _run(call.name, call.arguments, call.id, world, known) for call in reply.calls]
        messages += [tool(call.id, text) for call, text in zip(reply.calls, results, strict=True)]
    return Ended("", claims=False, fault="endless")


async def _run(name: str, arguments: str, number: str, world: World, known: set[str]) -> str:
    try:
        given = json.loads(arguments)
    except ValueError:
        return "Error: the arguments are no JSON."
    if name not in known:
        return f"Error: there is no tool {name}."
    try:
        return (await world.run(ToolCall(id=number, name=name, arguments=given, session="bench"))).text
    except TypeError as error:
        return f"Error: {error}"
