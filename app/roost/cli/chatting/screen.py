"""What a person sees of a turn: the answer, what the agent does meanwhile, and how it ended."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any, Protocol

from roost.agent.permission.policy import CHOICES
from roost.cli.chatting.markdown import BOLD, DIM, RESET, Markdown
from roost.cli.chatting.safe import safe, short
from roost.cli.show import size

Json = Any
ARGUMENTS, TEXT = 100, 100
"""Characters shown of a call's arguments and of what a refusal says."""
RED, GREEN, YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"
OUTCOMES = {"ok": GREEN, "refused": YELLOW, "cancelled": YELLOW}
WIDEST = 100
ENDS = {
    "yes": "allowed", "conversation": "allowed in this conversation", "always": "allowed from now on",
    "no": "not allowed", "unanswered": "not answered in time: not allowed", "stopped": "not answered: stopped",
}  # fmt: skip
"""What a question came to, in words."""


class Answer(Protocol):
    """Takes an answer's text as it comes."""

    def feed(self, text: str) -> None:
        """Take the next piece."""
        ...

    def end(self) -> None:
        """There is no more; the cursor is at the beginning of a line afterwards."""
        ...


class AsWritten:
    """Shows text as the model wrote it."""

    def __init__(self) -> None:
        self._open = False

    def feed(self, text: str) -> None:
        """Show it."""
        if text:
            write(text)
            self._open = not text.endswith("\n")

    def end(self) -> None:
        """End the line."""
        if self._open:
            write("\n")
        self._open = False


class Screen:
    """Shows the events of turns. `rich`: with styles; without, every text is as it was written."""

    def __init__(self, *, rich: bool) -> None:
        self._rich = rich
        self._answer: Answer = Markdown(write, columns) if rich else AsWritten()
        self._thinking = False
        self._calls: dict[str, str] = {}

    def show(self, event: dict[str, Json]) -> None:
        """Show an event, if people need to see it."""
        kind = event["type"]
        if self._thinking and kind != "thought":
            self._thinking = False
            self.line("")
        match kind:
            case "text":
                self._answer.feed(safe(event["text"]))
            case "thought":
                self._thought(safe(event["text"]))
            case "tool_call":
                self._calls[str(event["id"])] = safe(str(event["tool"]))
                arguments = " ".join(f"{name}={_value(value)}" for name, value in event["arguments"].items())
                self.line(f"→ {safe(str(event['tool']))} {short(arguments, ARGUMENTS)}".rstrip())
            case "tool_result":
                self._result(event)
            case "error":
                self.line(f"error: {safe(event['message'])}", RED)
                if event.get("fix"):
                    self.line(f"fix: {safe(event['fix'])}")
            case _:
                self._between(event)

    def _between(self, event: dict[str, Json]) -> None:
        match event["type"]:
            case "notice":
                self.line(f"· {safe(event['text'])}")
            case "cancelled":
                self.line("· stopped", YELLOW)
            case "question":
                self.line(f"? {safe(event['text'])}", YELLOW)
                self.line(f"  {CHOICES}, then Enter")
            case "question.answered":
                self.line(f"· {ENDS.get(str(event['answer']), safe(str(event['answer'])))}")
            case "end":
                self._answer.end()

    def line(self, text: str, style: str = DIM) -> None:
        """Show a line between what the model writes."""
        self._answer.end()
        write(f"{style}{text}{RESET}\n" if self._rich and text else f"{text}\n")

    def heading(self, text: str) -> None:
        """Show a line that stands out."""
        self._answer.end()
        write(f"{BOLD}{text}{RESET}\n" if self._rich else f"{text}\n")

    def whole(self, text: str) -> None:
        """Show a whole text as an answer is shown."""
        self._answer.feed(safe(text))
        self._answer.end()

    def _thought(self, text: str) -> None:
        if not self._thinking:
            self._answer.end()
            write(f"{DIM}(thinking){RESET} " if self._rich else "(thinking) ")
        self._thinking = True
        write(f"{DIM}{text}{RESET}" if self._rich else text)

    def _result(self, event: dict[str, Json]) -> None:
        outcome = str(event["outcome"])
        took = f"{event['seconds']:.1f} s" if event.get("seconds") else ""
        much = size(int(event.get("bytes", len(event["text"].encode())))) if outcome == "ok" else ""
        changed = ", ".join(short(str(one), TEXT) for one in event.get("changed") or ())
        said = "" if outcome == "ok" else short(str(event["text"]), TEXT)
        name = self._calls.pop(str(event["id"]), "")
        parts = [f"{name} {safe(outcome)}".strip(), much, took, f"changed {changed}" if changed else "", said]
        self.line(f"← {' · '.join(part for part in parts if part)}", OUTCOMES.get(outcome, RED))


def write(text: str) -> None:
    """Write to the terminal at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def columns() -> int:
    """Return how wide texts may be."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def _value(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
