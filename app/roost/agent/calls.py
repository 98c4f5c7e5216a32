"""Reading tool calls in whatever form a model writes them, and mending arguments where that is safe.

Models are trained on forms of their own; a server's parser knows some of them, and a call that it does not know comes
as text. Each reader knows one form. What a model only thinks (inside its thinking tags) counts where nothing else does.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue, TypeAdapter

JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)
THINKING = re.compile(r"<(think|thinking|thought|reasoning)>(?P<inside>.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
TOOL_CALL_TAGS = re.compile(r"<tool_call>\s*(?P<json>\{.*?\})\s*(?:</tool_call>|\Z)", re.DOTALL)  # Hermes, Qwen
FUNCTION_TAGS = re.compile(
    r"<function=(?P<name>[\w.-]+)>\s*(?P<body>.*?)\s*</function>", re.DOTALL
)  # Llama, Qwen coder
PARAMETER_TAGS = re.compile(r"<parameter=(?P<name>[\w.-]+)>\s*(?P<value>.*?)\s*</parameter>", re.DOTALL)
MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*(?P<json>\[.*\])", re.DOTALL)
MISTRAL_NAMED = re.compile(r"\[TOOL_CALLS\]\s*(?P<name>[\w.-]+)\s*(?:\[ARGS\])?\s*(?P<json>\{.*\})", re.DOTALL)
FENCED = re.compile(r"```(?:json|tool_call|tool)?\s*(?P<json>\{.*?\})\s*```", re.DOTALL)
PYTHONIC = re.compile(r"(?:^|\n)\s*\[?(?P<name>[a-z_]\w*)\((?P<arguments>[^()]*)\)\]?\s*(?:$|\n)")
NAME_KEYS = ("name", "tool", "function", "tool_name", "action")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "action_input", "params")


TOLD = re.compile(r"Called [\w.-]+(?: with \{.*\}|\(.*\))", re.DOTALL)
"""A call as the history of a model without a form of its own shows it (`repair`): small models write on in that way."""
WRAPPED = re.compile(r"<tool_call>(?P<tags>.*?)(?:</tool_call>)?|```\w*\n(?P<fence>.*?)\n?```", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A call as it was read: which form it had, and what had to be mended."""

    name: str
    arguments: dict[str, JsonValue]
    dialect: str
    repairs: tuple[str, ...] = ()


class BadCallError(ValueError):
    """What was written is no call of a tool that there is; the text says why, for the model."""


Reader = Callable[[str], Iterator[tuple[str, object]]]


def find_calls(text: str, schemas: Mapping[str, Mapping[str, JsonValue]]) -> list[Found]:
    """Return the calls in a text, of the tools whose parameter schemas are given; those that are none are left out."""
    outside = THINKING.sub("", text)
    found = _calls_in(outside, schemas)
    if found:
        return found
    inside = "\n".join(match.group("inside") for match in THINKING.finditer(text))
    return [
        Found(one.name, one.arguments, f"thinking+{one.dialect}", one.repairs) for one in _calls_in(inside, schemas)
    ]


def is_call(text: str) -> bool:
    """Say whether a text is nothing but a call, of a tool that there is or not."""
    bare = THINKING.sub("", text).strip()
    if TOLD.fullmatch(bare):
        return True
    wrapped = WRAPPED.fullmatch(bare)
    inner = (wrapped.group("tags") or wrapped.group("fence") or "") if wrapped else bare
    try:
        document = json.loads(inner)
    except ValueError:
        return False
    named = isinstance(document, dict) and any(isinstance(document.get(key), str) for key in NAME_KEYS)
    return named and any(isinstance(document.get(key), dict) for key in ARGUMENT_KEYS)


def check(name: object, arguments: object, schemas: Mapping[str, Mapping[str, JsonValue]], dialect: str) -> Found:
    """Return a call with its arguments as its tool's schema wants them.

    Raises:
        BadCallError: there is no such tool, or its arguments cannot be mended safely.
    """
    known = ", ".join(sorted(schemas))
    if not isinstance(name, str) or name not in schemas:
        raise BadCallError(f"There is no tool {name!r}. There are: {known}.")
    repairs: list[str] = []
    given: object = {} if arguments is None else arguments
    if isinstance(given, str):
        given = _object_of(given)
        repairs.append("text to object")
    if not isinstance(given, dict):
        raise BadCallError(f"The arguments of {name} have to be an object.")
    mended = _mended(name, dict(given), schemas[name], repairs)
    return Found(name, mended, dialect, tuple(repairs))


def _calls_in(text: str, schemas: Mapping[str, Mapping[str, JsonValue]]) -> list[Found]:
    for dialect, read in READERS:
        found: list[Found] = []
        for name, arguments in read(text):
            try:
                found.append(check(name, arguments, schemas, dialect))
            except BadCallError:
                continue
        if found:
            return found
    return []


def _named(document: object) -> Iterator[tuple[str, object]]:
    """Yield name and arguments of an object that says both, by the words that models use for them."""
    documents = document if isinstance(document, list) else [document]
    for one in documents:
        if not isinstance(one, dict):
            continue
        inner = one.get("function")
        if isinstance(inner, dict):
            one = inner
        name = next((one[key] for key in NAME_KEYS if isinstance(one.get(key), str)), None)
        if name is not None:
            yield name, next((one[key] for key in ARGUMENT_KEYS if key in one), {})


def _json_in(pattern: re.Pattern[str]) -> Reader:
    def read(text: str) -> Iterator[tuple[str, object]]:
        for match in pattern.finditer(text):
            yield from _named(_loaded(_balanced(text, match.start("json")) or match.group("json")))

    return read


def _function_tags(text: str) -> Iterator[tuple[str, object]]:
    for match in FUNCTION_TAGS.finditer(text):
        body = match.group("body")
        parameters = {p.group("name"): _value(p.group("value")) for p in PARAMETER_TAGS.finditer(body)}
        yield match.group("name"), parameters or _loaded(body) or {}


def _mistral_named(text: str) -> Iterator[tuple[str, object]]:
    for match in MISTRAL_NAMED.finditer(text):
        yield match.group("name"), _loaded(_balanced(text, match.start("json")) or match.group("json"))


def _bare(text: str) -> Iterator[tuple[str, object]]:
    place = text.find("{")
    while place >= 0:
        whole = _balanced(text, place)
        if not whole:
            return
        yield from _named(_loaded(whole))
        place = text.find("{", place + len(whole))


def _pythonic(text: str) -> Iterator[tuple[str, object]]:
    for match in PYTHONIC.finditer(text):
        try:
            call = ast.parse(f"f({match.group('arguments')})", mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            continue
        try:
            yield match.group("name"), {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue


READERS: tuple[tuple[str, Reader], ...] = (
    ("tool_call tags", _json_in(TOOL_CALL_TAGS)),
    ("function tags", _function_tags),
    ("mistral", _json_in(MISTRAL)),
    ("mistral named", _mistral_named),
    ("fenced json", _json_in(FENCED)),
    ("bare json", _bare),
    ("pythonic", _pythonic),
)


def _mended(
    name: str, arguments: dict[str, Any], schema: Mapping[str, JsonValue], repairs: list[str]
) -> dict[str, JsonValue]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    mended: dict[str, JsonValue] = {}
    for key, value in arguments.items():
        target = key if key in properties else _same_word(key, properties)
        if not target:
            raise BadCallError(f"{name} has no argument {key!r}. It has: {', '.join(properties) or 'none'}.")
        if target != key:
            repairs.append(f"{key} to {target}")
        kind = properties[target]
        wanted = kind.get("type") if isinstance(kind, dict) else None
        mended[target] = _typed(name, target, value, wanted, repairs)
    for needed in required if isinstance(required, list) else []:
        if needed not in mended:
            raise BadCallError(f"{name} needs the argument {needed!r}.")
    return mended


def _typed(name: str, key: str, value: object, wanted: JsonValue, repairs: list[str]) -> JsonValue:
    """Return a value in the type that is wanted, where no other reading of it is possible."""
    if _is(value, wanted):
        return JSON.validate_python(value)
    read = CONVERSIONS.get((type(value).__name__, str(wanted)))
    found = read(value) if read else None
    if found is None:
        raise BadCallError(f"The argument {key!r} of {name} has to be of type {wanted}.")
    repairs.append(f"{key}: {type(value).__name__} to {wanted}")
    return found


def _whole(value: object) -> JsonValue:
    text = str(value).strip().removesuffix(".0")
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def _decimal(value: object) -> JsonValue:
    return float(str(value)) if re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", str(value).strip()) else None


def _truth(value: object) -> JsonValue:
    return {"true": True, "false": False}.get(str(value).strip().lower())


CONVERSIONS: Mapping[tuple[str, str], Callable[[object], JsonValue]] = {
    ("str", "integer"): _whole,
    ("float", "integer"): _whole,
    ("str", "number"): _decimal,
    ("str", "boolean"): _truth,
    ("int", "string"): str,
    ("float", "string"): str,
    ("str", "array"): lambda value: [str(value)],
}


def _is(value: object, wanted: JsonValue) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
        "object": (dict,), "null": (type(None),),
    }  # fmt: skip
    if not isinstance(wanted, str) or wanted not in kinds:
        return True
    return isinstance(value, kinds[wanted]) and (wanted == "boolean" or not isinstance(value, bool))


def _same_word(key: str, properties: Collection[str]) -> str:
    """Return the argument that is the same word in another spelling (`filePath`, `file_path`), '' for none."""
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    same = [name for name in properties if re.sub(r"[^a-z0-9]", "", name.lower()) == plain]
    return same[0] if len(same) == 1 else ""


def _object_of(text: str) -> dict[str, Any]:
    found = _loaded(text)
    if not isinstance(found, dict):
        raise BadCallError("The arguments are no JSON object.")
    return found


def _loaded(text: str) -> object:
    """Return a document of JSON; a comma too many and raw line feeds in strings do not matter; None if it is none."""
    for candidate in (text, re.sub(r",\s*([}\]])", r"\1", text)):
        try:
            return load(candidate)
        except (ValueError, RecursionError):
            continue
    return None


def load(text: str) -> object:
    """Return a document of JSON; raw line feeds in strings do not matter.

    Raises:
        ValueError: it is none; NaN and infinities are none either.
    """
    return json.loads(text, strict=False, parse_constant=_no_number)


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no number")


def _value(text: str) -> object:
    found = _loaded(text)
    return text if found is None and text.strip() != "null" else found


def _balanced(text: str, begin: int) -> str:
    """Return the object or array that begins there, up to its own end; '' if it has none."""
    depth, inside, escaped = 0, False, False
    for place in range(begin, len(text)):
        letter = text[place]
        if inside:
            escaped = letter == "\\" and not escaped
            if letter == '"' and not escaped:
                inside = False
        elif letter == '"':
            inside = True
        elif letter in "{[":
            depth += 1
        elif letter in "}]":
            depth -= 1
            if depth == 0:
                return text[begin : place + 1]
    return ""
