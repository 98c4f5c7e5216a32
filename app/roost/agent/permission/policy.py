"""Which calls the user is asked about before they run. Pure: the one place for it, in turns, helpers and jobs alike.

What only reads runs, and so does what changes files of a workspace, because that can be undone. Asked about is a
command that throws work away, a tool of somebody else's server unless that has no network and says that it only reads,
and what has an effect beyond this machine. What a sandbox refuses stays refused, whatever the user says here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from pydantic import JsonValue

from roost.agent.sandbox.destructive import risky
from roost.agent.tool import Permission, ToolCall, ToolSpec
from roost.ops.directions import DIRECTIONS

ALLOWED_PATH = "/roost/v1/allowed"
SHOWN_CHARACTERS = 2000
"""Of a call's arguments, in a question."""


class Answer(StrEnum):
    """What the user says of a call that needs their word."""

    YES = "yes"
    """This call."""
    CONVERSATION = "conversation"
    """This call, and those like it in this conversation, or job."""
    ALWAYS = "always"
    """This call, and those like it from now on."""
    NO = "no"


CHOICES = "y (this once), c (in this conversation), a (always) or n (no)"
ALLOWS = frozenset({Answer.YES, Answer.CONVERSATION, Answer.ALWAYS})


@dataclass(frozen=True)
class Needed:
    """Why a call needs the user's word. `mark` is the same for calls that are allowed together."""

    why: str
    mark: str


def needed(spec: ToolSpec, call: ToolCall) -> Needed | None:
    """Return why the user is asked before a call runs; None where it just runs."""
    match spec.permission:
        case Permission.READ | Permission.WRITE | Permission.MEMORY:
            return None
        case Permission.RUN:
            why = risky("\n".join(map(str, call.arguments.values())))
            return Needed(f"the command {why}", f"{spec.name}: {why}") if why else None
        case Permission.NETWORK:
            if spec.read_only or spec.safe_to_repeat:  # what may be asked for twice has no effect there
                return None
            return Needed("it has an effect beyond this machine", mark_of(spec))
        case Permission.FOREIGN:
            if spec.read_only:
                return None
            why = "it is a tool of another's server, which may do more than read, or keep what it is given"
            return Needed(why, mark_of(spec))


def mark_of(spec: ToolSpec) -> str:
    """Return what stands for a tool as it is described now: one that comes to be another is asked about again."""
    text = json.dumps([spec.description, spec.parameters], sort_keys=True)
    return f"{spec.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def answer_of(word: str) -> Answer | None:
    """Return the answer that a word is, by its first letter or whole; None for none."""
    given = word.strip().lower()
    short = {one.value[0]: one for one in Answer}
    return short.get(given) or next((one for one in Answer if one == given), None)


def asked_text(tool: str, arguments: dict[str, JsonValue], why: str) -> str:
    """Return the question in words: whatever its arguments hold, a line shows what it says."""
    told = json.dumps(arguments, ensure_ascii=False).translate(DIRECTIONS)
    if (more := len(told) - SHOWN_CHARACTERS) > 0:  # the end counts as much as the beginning
        half = SHOWN_CHARACTERS // 2
        told = f"{told[:half]} … ({more} characters more) … {told[-half:]}"
    return f"May {tool} be called with {told}? You are asked because {why}."


def refusal(tool: str, why: str, said: str) -> str:
    """Return what a model reads of a call that was not allowed."""
    return f"{tool} was not called, because {why}, and {said}. Nothing was done; do not try it in another way."


SAID_NO = "the user was asked and said no"
NOT_ANSWERED = "the user was asked and did not answer"


def gone(tool: str) -> str:
    """Return what a model reads of a call whose tool is not there when it is due: what it needs cannot be said."""
    return f"There is no tool {tool} now. Nothing was done."


def changed(tool: str) -> str:
    """Return what a model reads of a call whose tool became another one while the user was asked."""
    return f"{tool} is another tool now than the one that the user was asked about. Nothing was done."


def nobody(tool: str) -> str:
    """Return why nobody was asked, and what to set."""
    return f"nobody who asks this way can be asked; --allow {tool} (over the API: allow) allows it beforehand"
