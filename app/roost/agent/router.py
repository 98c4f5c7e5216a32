"""The Router: reads what a request asks for and decides a pipeline of actions, held to a schema by a grammar.

Where no model answers in time, or what it says is none of the actions there are, words decide (`intent`). Either way
the outcome says which of the two it was and why, for the log and the metrics.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from roost.agent.calls import BadCallError, check, load
from roost.agent.intent import Guess, guess, only_talk
from roost.agent.models import Ask, Models, Usage
from roost.agent.receipts import missing
from roost.agent.tool import ToolSpec
from roost.context.messages import Message
from roost.ops.errors import RoostError

TIMEOUT_S = 30.0
ANSWER_TOKENS = 512
MOST_ACTIONS = 6
SCRATCH = "{scratch."
"""Arguments may name what an earlier action left: `{scratch.page1}`."""

INSTRUCTIONS = """You decide what has to be done for a request; you do not answer it.
Give the actions in order, each with a tool and its arguments. "save_as" names what an action leaves, and the arguments
of a later one may use it as {scratch.NAME}. Give no actions if the request can be answered without tools. If something
that you need is missing, ask with "question" and give no actions.

Tools:
"""


@dataclass(frozen=True)
class Action:
    """One call to make. What it leaves is kept as `save_as`."""

    tool: str
    arguments: dict[str, JsonValue]
    save_as: str = ""


@dataclass(frozen=True)
class Routed:
    """What the Router decided. `preflight` is `fired` or `skipped: REASON`; `by` says who decided."""

    actions: tuple[Action, ...] = ()
    question: str = ""
    preflight: str = ""
    by: str = "model"
    usage: Usage = field(default_factory=Usage)
    problems: tuple[str, ...] = ()


def instructions(tools: Sequence[ToolSpec]) -> str:
    """Return the Router's frozen head for these tools."""
    return INSTRUCTIONS + listed(tools)


def listed(tools: Sequence[ToolSpec]) -> str:
    """Return tools as lines that a model reads."""
    return "\n".join(
        f"- {tool.name}: {tool.description} Arguments: {json.dumps(tool.parameters.get('properties', {}))}"
        for tool in tools
    )


def schema(tools: Sequence[ToolSpec]) -> dict[str, JsonValue]:
    """Return the schema of a decision: what the server's grammar lets the model write."""
    variants: list[JsonValue] = [
        {
            "type": "object",
            "properties": {
                "tool": {"const": tool.name}, "arguments": dict(tool.parameters), "save_as": {"type": "string"}
            },
            "required": ["tool", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]  # fmt: skip
    actions: dict[str, JsonValue] = {"type": "array", "maxItems": MOST_ACTIONS, "items": {"anyOf": variants}}
    return {
        "type": "object",
        "properties": {"question": {"type": "string"}, "actions": actions},
        "required": ["actions"],
        "additionalProperties": False,
    }


async def route(
    models: Models, model: str, messages: Sequence[Message], request: str, tools: Sequence[ToolSpec], session: str = ""
) -> Routed:
    """Return what to do for a request. `messages` are the Router's pack. Raises nothing for what a model did."""
    if not tools:
        return Routed(preflight="skipped: there are no tools", by="nobody")
    if only_talk(request):
        return Routed(preflight="skipped: talk", by="words")
    ask = Ask(model, messages, ANSWER_TOKENS, schema(tools), session=session and f"{session}-router")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reply = await models.ask(ask)
    except TimeoutError:
        return by_words(request, tools, f"the router took more than {TIMEOUT_S:.0f} s")
    except RoostError as error:
        return by_words(request, tools, f"the router did not answer: {error.message}")
    try:
        decided = read(reply.text, tools)
    except BadCallError as error:
        return by_words(request, tools, f"the router's answer was wrong: {error}", reply.usage)
    if not decided.actions and not decided.question and (open_ends := missing(request, tools, ())):
        return by_words(request, tools, f"the router saw nothing to do, but {open_ends[0]}", reply.usage)
    fired = "fired" if decided.actions else "skipped: nothing has to be done"
    return Routed(decided.actions, decided.question, fired, "model", reply.usage)


def read(text: str, tools: Sequence[ToolSpec]) -> Routed:
    """Return the decision in a Router's answer.

    Raises:
        BadCallError: it is none, or it names what there is not.
    """
    schemas = {tool.name: tool.parameters for tool in tools}
    try:
        document = load(text)
    except ValueError:
        raise BadCallError("It is no JSON.") from None
    if not isinstance(document, dict) or not isinstance(document.get("actions"), list):
        raise BadCallError("It has no list of actions.")
    actions: list[Action] = []
    names: set[str] = set()
    for entry in document["actions"][:MOST_ACTIONS]:
        if not isinstance(entry, dict):
            raise BadCallError("An action is no object.")
        found = check(entry.get("tool"), entry.get("arguments"), schemas, "router")
        for name in references(found.arguments):
            if name not in names:
                raise BadCallError(f"Nothing before it leaves {name!r}.")
        if any((one.tool, one.arguments) == (found.name, found.arguments) for one in actions):
            continue  # said again, not meant again
        save_as = str(entry.get("save_as") or f"result{len(actions) + 1}")
        names.add(save_as)
        actions.append(Action(found.name, found.arguments, save_as))
    question = document.get("question")
    return Routed(tuple(actions), question.strip() if isinstance(question, str) and not actions else "")


def by_words(request: str, tools: Sequence[ToolSpec], reason: str, usage: Usage | None = None) -> Routed:
    """Return what the words of a request ask for, because of what went wrong with the model."""
    found: Guess = guess(request, {tool.name for tool in tools})
    spec = next((tool for tool in tools if tool.name == found.tool), None)
    actions: tuple[Action, ...] = ()
    if spec:
        known = spec.parameters.get("properties")
        wanted = {
            key: value for key, value in (found.arguments or {}).items() if isinstance(known, dict) and key in known
        }
        actions = (Action(found.tool, wanted, "result1"),)
    fired = f"fired: {found.rule}" if actions else f"skipped: no rule fits ({found.rule})"
    return Routed(actions, found.question, fired, "words", usage or Usage(), (reason,))


def references(value: JsonValue) -> list[str]:
    """Return the names of what arguments take from the scratchpad."""
    if isinstance(value, str):
        return [part.partition("}")[0] for part in value.split(SCRATCH)[1:] if "}" in part]
    if isinstance(value, list):
        return [name for one in value for name in references(one)]
    if isinstance(value, dict):
        return [name for one in value.values() for name in references(one)]
    return []


def filled(value: JsonValue, scratch: dict[str, str]) -> JsonValue:
    """Return arguments with what the scratchpad holds put in."""
    if isinstance(value, str):
        for name, text in scratch.items():
            value = value.replace(f"{SCRATCH}{name}}}", text)
        return value
    if isinstance(value, list):
        return [filled(one, scratch) for one in value]
    if isinstance(value, dict):
        return {key: filled(one, scratch) for key, one in value.items()}
    return value
