"""Whether work is done is computed, not believed: from what a request names and what calls show to have happened.

A request that names a file, an address or a command and asks for something to be done with it is done when a call that
went well had to do with it; one that asks for a change, when something was changed; one that asks for a change and a
run, when the run is newer than the change. What a request does not name is not judged here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roost.agent.foreign import is_foreign
from roost.agent.intent import LIST, PATH, READ, URL, asks_for_change, guess, head_of, names_something
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolSpec

COMMANDED = re.compile(r"\b(?:run|execute)\b[^`.]{0,30}`(?P<command>[^`]+)`", re.IGNORECASE)
RERUN = re.compile(r"\b(?:run|test|execute)\b[^.]{0,40}\b(?:again|afterwards|after that)\b", re.IGNORECASE)
CONTENT = re.compile(
    r"\bwith (?:this|the|the following) (?:content|text)\s*:\s*(?P<text>\S.*)", re.IGNORECASE | re.DOTALL
)
REPLACED = re.compile(r"\breplace `[^`]+` (?:by|with) `(?P<text>[^`]+)`", re.IGNORECASE)
SERVES: Mapping[str, frozenset[str]] = {
    "read": frozenset({"read", "search", "shell"}),
    "list": frozenset({"list", "shell"}),
    "search": frozenset({"search", "shell", "read"}),
    "web_fetch": frozenset({"web_fetch", "researcher"}),
    "researcher": frozenset({"researcher", "web_fetch", "web_search"}),
    "shell": frozenset({"shell"}),
}
"""Which tools do what a tool was to do; for those that are not here any other does."""
HAPPENED = frozenset({Outcome.OK})
RAN = frozenset({Outcome.OK, Outcome.FAILED})
"""A command that fails has run, and that it fails may be what was asked."""


@dataclass(frozen=True)
class Receipt:
    """A call that was made, with what it may do and what came of it."""

    call: ToolCall
    permission: Permission
    result: ToolResult

    @property
    def well(self) -> bool:
        """Say whether it went well."""
        return self.result.outcome in HAPPENED

    @property
    def happened(self) -> bool:
        """Say whether it did something: it went well, or it is a command that ran and failed."""
        return self.result.outcome in (RAN if self.permission is Permission.RUN else HAPPENED)

    def concerns(self, named: str) -> bool:
        """Say whether its arguments name something."""
        plain = named.removeprefix("./").rstrip("/") or named
        whole = rf"(?<![\w-]){re.escape(plain)}(?![\w-]|\.\w)"  # a.txt.html is not a.txt
        return re.search(whole, json.dumps(self.call.arguments, ensure_ascii=False)) is not None

    def says(self, text: str) -> bool:
        """Say whether one of its arguments has a text, blanks aside."""
        return any(
            squeezed(text) in squeezed(value) for value in self.call.arguments.values() if isinstance(value, str)
        )


def missing(request: str, tools: Sequence[ToolSpec], receipts: Sequence[Receipt]) -> list[str]:
    """Return what a request asks for and no receipt shows, in words; empty where nothing is known to be missing."""
    can = {tool.permission for tool in tools}
    wanted = guess(request, {tool.name for tool in tools}).tool if names_something(request) else ""
    if not wanted and not receipts:
        return []
    found: list[str] = []
    asked, request = request, head_of(request)
    if Permission.NETWORK in can:
        found += [f"{url} was not read" for url in urls(request) if not _touched(url, receipts)]
    change = asks_for_change(request)
    if change or READ.search(request) or LIST.search(request):
        found += [f"{path} was not used" for path in paths(request) if not _touched(path, receipts)]
    changed = _last(receipts, {Permission.WRITE, Permission.RUN, Permission.FOREIGN})
    if change and Permission.WRITE in can and changed is None:
        found.append("nothing was changed")
    elif change and changed is not None and not _written(asked, receipts):
        found.append("the text that was asked for was not written")
    found += _runs(request, can, receipts)
    if wanted and not found and not any(_serves(wanted, one) for one in receipts):
        found.append(f"the tool {wanted} was not used")
    return found


def shown(request: str, tools: Sequence[ToolSpec], receipts: Sequence[Receipt]) -> bool:
    """Say whether receipts show that all was done: the request names something, and nothing of it is missing."""
    head = head_of(request)
    judged = names_something(request) and (
        bool(urls(head)) or asks_for_change(head) or any(rule.search(head) for rule in (READ, LIST, COMMANDED))
    )
    return judged and any(one.well for one in receipts) and not missing(request, tools, receipts)


def _serves(wanted: str, one: Receipt) -> bool:
    if is_foreign(wanted):
        return one.call.name == wanted and one.happened
    may = wanted not in SERVES or one.call.name in SERVES[wanted] or one.permission is Permission.FOREIGN
    return may and one.happened


def _runs(request: str, can: set[Permission], receipts: Sequence[Receipt]) -> list[str]:
    if Permission.RUN not in can:
        return []
    runs = [n for n, one in enumerate(receipts) if one.permission is Permission.RUN and one.result.outcome in RAN]
    commands = [match.group("command") for match in COMMANDED.finditer(request)]
    found = [f"`{one}` was not run" for one in commands if not any(receipts[n].concerns(one) for n in runs)]
    edit = _last(receipts, {Permission.WRITE})
    if not found and RERUN.search(request) and edit is not None and max(runs, default=-1) < edit:
        found.append("nothing was run after the last change")
    return found


def urls(request: str) -> list[str]:
    """Return the addresses that a request names, each once."""
    return list(dict.fromkeys(match.group().rstrip(".,;:!?") for match in URL.finditer(request)))


def paths(request: str) -> list[str]:
    """Return the paths that a request names, each once; text in backquotes counts only where it looks like one."""
    without = URL.sub(" ", request)
    named = [match.group("path") for match in PATH.finditer(without) if match.group("path")]
    return list(dict.fromkeys(name for name in named if name not in {".", ".."}))


def squeezed(text: str) -> str:
    """Return a text without blanks."""
    return "".join(text.split())


def _written(request: str, receipts: Sequence[Receipt]) -> bool:
    """Say whether the texts that a request has written were, as far as calls show; a command has its own way."""
    done = [one for one in receipts if one.well and one.permission is not Permission.READ]
    if any(one.permission is not Permission.WRITE for one in done):
        return True
    texts = [match.group("text") for rule in (CONTENT, REPLACED) for match in rule.finditer(request)]
    return all(any(one.says(text.strip().strip("`")) for one in done) for text in texts)


def _touched(named: str, receipts: Sequence[Receipt]) -> bool:
    return any(one.well and one.concerns(named) for one in receipts)


def _last(receipts: Sequence[Receipt], kinds: set[Permission]) -> int | None:
    found = [n for n, one in enumerate(receipts) if one.permission in kinds and one.well]
    return found[-1] if found else None
