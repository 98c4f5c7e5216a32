"""Arranging a conversation so that a model's template renders it: whatever its history went through, nothing a user
said is lost or moved.

Templates raise on what they do not know (a system message, two turns of a user, a result without its call), or drop it
in silence, which is worse. Each step here is a pure function over messages; `repair` applies all of them, and applying
it twice changes nothing more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roost.context.capabilities import Capabilities
from roost.context.messages import Call, Message, Role, assistant, tool, user

BREAK = "\n\n"
NO_RESULT = "(no result: the call was interrupted)"
NO_OUTPUT = "(no output)"
NO_ANSWER = "(no answer)"
NO_REQUEST = "(no request)"
GO_ON = "(go on)"
RAW_ARGUMENTS = "malformed"
REPLACEMENT = "\ufffd"

_BROKEN = re.compile("[\ud800-\udfff\x00]")
_THINKING = re.compile(
    r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)|\[THINK\].*?(?:\[/THINK\]|\Z)", re.DOTALL | re.IGNORECASE
)
_OPENED_BY_TEMPLATE = re.compile(r"\A(?:(?!<think).)*?</(?:think|thinking)>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Repaired:
    """A conversation that renders, and what was done to it: one word a kind of repair, in order, each once."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...] = ()


Step = Callable[[list[Message], Capabilities], list[Message]]


def repair(messages: Sequence[Message], capabilities: Capabilities) -> Repaired:
    """Return the conversation as the template takes it. Never raises."""
    now = list(messages)
    notes: list[str] = []
    for note, step in STEPS:
        after = step(now, capabilities)
        if after != now:
            notes.append(note)
            now = after
    return Repaired(tuple(now), tuple(notes))


def clean_text(text: str) -> str:
    """Return a text without what UTF-8 or a template cannot hold: lone surrogates and NUL become U+FFFD."""
    return _BROKEN.sub(REPLACEMENT, text)


def without_thinking(text: str) -> str:
    """Return an answer without what the model thought aloud: tags, open ones, and those the template had opened."""
    if "<" not in text and "[" not in text:
        return text
    stripped = _THINKING.sub("", text)
    stripped = _OPENED_BY_TEMPLATE.sub("", stripped)
    return text if stripped == text else stripped.strip()


def _unicode(messages: list[Message], _: Capabilities) -> list[Message]:
    return [
        message.model_copy(
            update={
                "text": clean_text(message.text),
                "call_id": clean_text(message.call_id),
                "calls": tuple(
                    Call(id=clean_text(c.id), name=clean_text(c.name), arguments=clean_text(c.arguments))
                    for c in message.calls
                ),
            }
        )
        for message in messages
    ]


def _thinking(messages: list[Message], _: Capabilities) -> list[Message]:
    return [
        message.model_copy(update={"text": without_thinking(message.text)})
        if message.role is Role.ASSISTANT
        else message
        for message in messages
    ]


def _arguments(messages: list[Message], _: Capabilities) -> list[Message]:
    """Make arguments a JSON object: templates iterate over them, and servers answer 500 to what is none."""
    return [
        message.model_copy(update={"calls": tuple(_with_object(call) for call in message.calls)})
        if message.calls
        else message
        for message in messages
    ]


def _with_object(call: Call) -> Call:
    try:
        value = json.loads(call.arguments)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return call
    held = {} if value is None and not call.arguments.strip() else {RAW_ARGUMENTS: call.arguments}
    return call.model_copy(update={"arguments": json.dumps(held, ensure_ascii=False)})


def _placed(messages: list[Message], _: Capabilities) -> list[Message]:
    """Leave calls and tool messages only where they may be: calls with an assistant, call ids with a tool."""
    placed = []
    for message in messages:
        update: dict[str, object] = {}
        if message.calls and message.role is not Role.ASSISTANT:
            update["calls"] = ()
        if message.call_id and message.role is not Role.TOOL:
            update["call_id"] = ""
        placed.append(message.model_copy(update=update) if update else message)
    return placed


def _empty(messages: list[Message], _: Capabilities) -> list[Message]:
    kept = []
    for message in messages:
        if message.text.strip() or message.calls:
            kept.append(message)
        elif message.role is Role.TOOL:
            kept.append(message.model_copy(update={"text": NO_OUTPUT}))
    return kept


def _orphans(messages: list[Message], _: Capabilities) -> list[Message]:
    """Give each call its result right behind it, and tell results without a call as what they are: text."""
    kept: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if message.role is Role.TOOL:
            kept.append(user(f"[Result of a call that is no longer shown]\n{message.text}"))
            continue
        kept.append(message)
        if not message.calls:
            continue
        waiting = [call.id for call in message.calls]
        strays: list[Message] = []
        while at < len(messages) and messages[at].role is Role.TOOL:
            result = messages[at]
            at += 1
            if result.call_id in waiting:
                waiting.remove(result.call_id)
                kept.append(result)
            else:
                strays.append(user(f"[Result of a call that is no longer shown]\n{result.text}"))
        kept += [tool(call_id, NO_RESULT) for call_id in waiting]
        kept += strays
    return kept


def _call_ids(messages: list[Message], can: Capabilities) -> list[Message]:
    """Make the ids of calls unique, and as long as the template has them. Results follow their call by now."""
    used: set[str] = set()
    kept: list[Message] = []
    renamed: dict[str, list[str]] = {}
    for message in messages:
        if message.calls:
            renamed = {}
            calls = []
            for call in message.calls:
                new = _fresh(call.id, used, can.call_id_length)
                used.add(new)
                renamed.setdefault(call.id, []).append(new)
                calls.append(call.model_copy(update={"id": new}))
            kept.append(message.model_copy(update={"calls": tuple(calls)}))
        elif message.role is Role.TOOL and renamed.get(message.call_id):
            kept.append(message.model_copy(update={"call_id": renamed[message.call_id].pop(0)}))
        else:
            kept.append(message)
    return kept


def _fresh(wanted: str, used: set[str], length: int) -> str:
    fits = bool(wanted) and (not length or (len(wanted) == length and wanted.isascii() and wanted.isalnum()))
    new, number = wanted, 0
    while not fits or new in used:
        digest = hashlib.sha256(f"{number} {wanted}".encode()).hexdigest()
        new, fits, number = digest[: length or 9], True, number + 1
    return new


def _one_call(messages: list[Message], can: Capabilities) -> list[Message]:
    """Have one call a message, each with its result, where a template takes no more."""
    if can.many_calls:
        return messages
    kept: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if len(message.calls) < 2:
            kept.append(message)
            continue
        results = {}
        while at < len(messages) and messages[at].role is Role.TOOL:
            results[messages[at].call_id] = messages[at]
            at += 1
        for number, call in enumerate(message.calls):
            kept.append(assistant(message.text if number == 0 else "", call))
            kept.append(results[call.id])
    return kept


def _calls_apart(messages: list[Message], can: Capabilities) -> list[Message]:
    """Take the text out of a message with calls where a template would drop it."""
    if can.text_with_calls:
        return messages
    kept: list[Message] = []
    for message in messages:
        if message.calls and message.text.strip():
            kept += [assistant(message.text), message.model_copy(update={"text": ""})]
        else:
            kept.append(message)
    return kept


def _no_tools(messages: list[Message], can: Capabilities) -> list[Message]:
    """Tell calls and results as text where a template knows none."""
    if can.tools:
        return messages
    kept: list[Message] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.calls:
            names = {call.id: call.name for call in message.calls}
            told = [f"Called {call.name} with {call.arguments}" for call in message.calls]
            kept.append(assistant(BREAK.join([*([message.text] if message.text.strip() else []), *told])))
        elif message.role is Role.TOOL:
            kept.append(user(f"[Result of {names.get(message.call_id, 'a call')}]\n{message.text}"))
        else:
            kept.append(message)
    return kept


def _system(messages: list[Message], can: Capabilities) -> list[Message]:
    """Have one system message at the beginning, or none: later ones stay where they are, as the user's."""
    if can.system and can.late_system and not can.alternates:
        return messages
    leading = 0
    while leading < len(messages) and messages[leading].role is Role.SYSTEM:
        leading += 1
    rest = [
        user(f"[Instruction]\n{message.text}") if message.role is Role.SYSTEM else message
        for message in messages[leading:]
    ]
    if not leading:
        return rest
    text = BREAK.join(message.text for message in messages[:leading])
    if can.system:
        return [messages[0].model_copy(update={"text": text}), *rest]
    if rest and rest[0].role is Role.USER:
        return [user(text + BREAK + rest[0].text), *rest[1:]]
    return [user(text), *rest]


def _alternation(messages: list[Message], can: Capabilities) -> list[Message]:
    """Have user and assistant take turns: neighbours of one role become one, and what is missing is filled in.

    A message with calls and its results are no turn: they stand between a user's and the answer to it.
    """
    if not can.alternates:
        return messages
    kept: list[Message] = []
    for message in messages:
        last = kept[-1] if kept else None
        if last is not None and message.role is Role.USER:
            if last.role is Role.USER:
                kept[-1] = user(last.text + BREAK + message.text)
                continue
            if last.role is Role.TOOL:
                kept.append(assistant(NO_ANSWER))
        elif last is not None and message.role is Role.ASSISTANT and last.role is Role.ASSISTANT and not last.calls:
            if message.calls and not can.text_with_calls:
                kept += [user(GO_ON), message]
                continue
            text = BREAK.join(part for part in (last.text, message.text) if part.strip())
            kept[-1] = message.model_copy(update={"text": text})
            continue
        kept.append(message)
    return kept


def _user_first(messages: list[Message], _: Capabilities) -> list[Message]:
    """Have a user begin: some templates want one at all, some take the first message for the user's whoever spoke."""
    leading = 0
    while leading < len(messages) and messages[leading].role is Role.SYSTEM:
        leading += 1
    if leading < len(messages) and messages[leading].role is Role.USER:
        return messages
    return [*messages[:leading], user(NO_REQUEST), *messages[leading:]]


STEPS: tuple[tuple[str, Step], ...] = (
    ("placed", _placed),
    ("unicode", _unicode),
    ("thinking", _thinking),
    ("arguments", _arguments),
    ("empty", _empty),
    ("orphans", _orphans),
    ("call_ids", _call_ids),
    ("one_call", _one_call),
    ("no_tools", _no_tools),
    ("calls_apart", _calls_apart),
    ("system", _system),
    ("user_first", _user_first),
    ("alternation", _alternation),
)
