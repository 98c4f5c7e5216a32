"""Whether a model's answer is good enough to be passed on, or a stronger model should try. Pure.

Only what can be seen without understanding: nothing was said, it was cut, it is not what its schema asks for, a tool is
called that is not there or with arguments that do not fit, it says the same again and again, or declines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic_core import from_json

from roost.gateway.choice.schema_check import fits
from roost.gateway.request.kinds import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Kind

TAIL_CHARS, LONGEST_PERIOD, DIFFERENT = 240, 60, 3  # of a text that repeats itself at its end
SHORT_CHARS = 400  # a longer answer that begins with regrets goes on to say something
REFUSAL = re.compile(
    r"^\W*(?:i(?:'|\u2019)?m (?:very |really )?sorry,? (?:but )?(?:i|as an)"
    r"|i (?:can(?:no|')t|am unable to|am not able to) (?:help|assist|do|provide|answer|fulfil|create|generate)"
    r"|sorry,? (?:but )?i can|as an ai(?: language model)?,? i"
    r"|es tut mir leid,? (?:aber )?(?:ich|als)|ich kann (?:dir|ihnen) (?:dabei|damit) nicht"
    r"|je suis désolée?,? (?:mais )?je"
    r"|lo siento,? (?:pero )?no puedo|mi dispiace,? (?:ma )?non posso|desculpe,? (?:mas )?(?:eu )?não posso)",
    re.IGNORECASE,
)
UNREAD_CALL = re.compile(r"<tool_call>|<\|tool_call|\[TOOL_CALLS\]|<function=")


class Objection(StrEnum):
    """What is wrong with an answer; the words of the header, the log and the metrics."""

    EMPTY = "empty"
    LENGTH = "length"
    SCHEMA = "schema"
    TOOL_CALL = "tool-call"
    REPETITION = "repetition"
    REFUSAL = "refusal"


@dataclass(frozen=True)
class _Said:
    """One answer: its text, the tools it calls with their arguments (None: unreadable), whether it was cut."""

    text: str
    calls: tuple[tuple[str, object], ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Wanted:
    """What a request asks of its answer. `schema` None: text; `tools` maps names to the schemas of their arguments."""

    schema: object = None
    json: bool = False
    tools: Mapping[str, object] | None = None
    must_call: bool = False
    limited: bool = False  # it says how long the answer may be


def wanted_of(body: bytes, answer_tokens: int | None) -> Wanted:
    """Read what a checked request asks of its answer."""
    document: dict[str, object] = from_json(body)
    text = document.get("text")
    given = document.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    kind = given.get("type") if isinstance(given, dict) else None
    schema = document.get("json_schema")
    if isinstance(given, dict) and kind == "json_schema":
        inner = given.get("json_schema", given)
        schema = inner.get("schema") if isinstance(inner, dict) else None
    tools = dict(_tools(document.get("tools")))
    choice = document.get("tool_choice")
    must = choice in ("required", "any") or (isinstance(choice, dict) and choice.get("type") not in ("auto", "none"))
    is_json = kind in ("json_schema", "json_object") or schema is not None
    return Wanted(schema, is_json, tools or None, bool(tools) and must, answer_tokens is not None)


def objection(kind: Kind, wanted: Wanted, answer: bytes) -> Objection | None:
    """Return what is wrong with a whole answer of a model server; of several answers in it, if it is with all."""
    try:
        document = json.loads(answer)
    except ValueError:
        return None
    said = list(_answers(kind, document)) if isinstance(document, dict) else []
    found = [_object(one, wanted) for one in said]
    return found[0] if found and all(found) else None


def _object(said: _Said, wanted: Wanted) -> Objection | None:
    text = said.text.strip()
    if wanted.tools and (why := _calls(said, wanted, wanted.tools)):
        return why
    if said.calls:
        return None
    if not text:
        return Objection.EMPTY
    if repeats(text):
        return Objection.REPETITION
    if wanted.json and not _is_json(text, wanted.schema):
        return Objection.SCHEMA
    if said.cut and not wanted.limited:
        return Objection.LENGTH
    return Objection.REFUSAL if len(text) <= SHORT_CHARS and REFUSAL.match(text) else None


def _calls(said: _Said, wanted: Wanted, tools: Mapping[str, object]) -> Objection | None:
    if any(
        name not in tools or not isinstance(given, dict) or not fits(given, tools[name]) for name, given in said.calls
    ):
        return Objection.TOOL_CALL
    missing = not said.calls and (wanted.must_call or UNREAD_CALL.search(said.text))
    return Objection.TOOL_CALL if missing else None


def repeats(text: str) -> bool:
    """Say whether a text ends in the same few words again and again.

    The smallest period of its end, by the failure function of Knuth, Morris and Pratt.
    """
    tail = text[-TAIL_CHARS:]
    if len(tail) < TAIL_CHARS:
        return False
    borders = [0] * len(tail)
    length = 0
    for at in range(1, len(tail)):
        while length and tail[at] != tail[length]:
            length = borders[length - 1]
        length += tail[at] == tail[length]
        borders[at] = length
    period = len(tail) - borders[-1]
    return period <= LONGEST_PERIOD and sum(c.isalpha() for c in set(tail[:period])) >= DIFFERENT


def _is_json(text: str, schema: object) -> bool:
    try:
        return fits(json.loads(text), schema)
    except ValueError:
        return False


def _tools(tools: object) -> Iterator[tuple[str, object]]:
    """Yield name and schema of each tool, in the words of OpenAI's two APIs and of Anthropic's."""
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            inner = tool.get("function", tool)
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                yield inner["name"], inner.get("parameters", inner.get("input_schema"))


def _answers(kind: Kind, document: Mapping[str, object]) -> Iterator[_Said]:
    if kind in (CHAT, COMPLETIONS):
        for choice in _objects(document.get("choices")):
            message = choice.get("message")
            inner = message if isinstance(message, dict) else {"content": choice.get("text")}
            calls = tuple(
                (str(call.get("name", "")), _arguments(call.get("arguments")))
                for call in (_object_of(call.get("function")) for call in _objects(inner.get("tool_calls")))
            )
            yield _Said(_text(inner.get("content")), calls, choice.get("finish_reason") == "length")
    elif kind is MESSAGES:
        blocks = _objects(document.get("content"))
        text = "".join(_text(block.get("text")) for block in blocks)
        calls = tuple((str(b.get("name", "")), b.get("input")) for b in blocks if b.get("type") == "tool_use")
        yield _Said(text, calls, document.get("stop_reason") == "max_tokens")
    elif kind is RESPONSES:
        items = _objects(document.get("output"))
        parts = [part for item in items for part in _objects(item.get("content")) if item.get("type") == "message"]
        calls = tuple(
            (str(item.get("name", "")), _arguments(item.get("arguments")))
            for item in items
            if item.get("type") == "function_call"
        )
        yield _Said("".join(_text(part.get("text")) for part in parts), calls, document.get("status") == "incomplete")


def _arguments(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _objects(value: object) -> Sequence[Mapping[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object_of(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
