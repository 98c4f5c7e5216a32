"""The terminal chat: lines in, what the agent does and says out, commands that begin with a slash."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from roost.agent.permission.policy import CHOICES, answer_of
from roost.cli.agent import Talk
from roost.cli.chatting.keys import Ahead, RepliedError, StoppedError, Watch, key_by_key
from roost.cli.chatting.safe import safe, short
from roost.cli.chatting.screen import Screen
from roost.cli.show import local_time, print_table
from roost.context.modes import parse_mode
from roost.ops.errors import RoostError

Json = Any
COMMANDS = {
    "/help": "show this",
    "/new": "begin another conversation",
    "/sessions": "list conversations",
    "/resume": "go on with one: /resume 2 or an id; without, the last one",
    "/think": "show what the model thinks, or no longer",
    "/mode": "show or choose the cost mode: fast, smart, max",
    "/cost": "show what this conversation took",
    "/undo": "put back the files that the last call changed",
    "/workspaces": "list folders that connected workers give",
    "/workspace": "choose one: NAME or MACHINE/NAME",
    "/quit": "leave (so does Ctrl-D)",
}
KEYS = (
    "Enter sends, Alt-Enter begins a new line, a paste keeps its lines. "
    "Esc or Ctrl-C stops an answer, Ctrl-C again leaves. Lines sent while an answer is written are run after it."
)
WELCOME = "Talk to the agent. /help shows what there is; Esc stops an answer."
LISTED, SHOWN = 15, 4
"""Conversations in a list, and messages shown of one that is gone on with."""


class Chat:
    """One user at a terminal."""

    def __init__(self, talk: Talk, screen: Screen, ask: Callable[[str], str]) -> None:
        self._talk = talk
        self._screen = screen
        self._ask = ask
        self._listed: list[str] = []
        self._ahead = Ahead()
        self._took: list[dict[str, Json]] = []
        self._asked: dict[str, dict[str, Json]] = {}
        """Questions of the turn under way by their ids, the oldest first: that one is shown, and answered."""

    def run(self) -> None:
        """Talk until the user leaves."""
        self._screen.line(WELCOME)
        interrupted = False
        while True:
            try:
                line = self._next()
            except EOFError:
                return
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = True
                self._screen.line("Ctrl-C again leaves.")
                continue
            interrupted = False
            if line in ("/quit", "/exit"):
                return
            try:
                if line.startswith("/"):
                    self._command(line)
                elif line and not self._say(line):
                    return
            except RoostError as error:
                self._screen.show({"type": "error", "message": error.message, "fix": error.fix})

    def _next(self) -> str:
        """Return the next line: one that was sent ahead, which is shown, or one that is asked for."""
        if self._ahead.lines:
            line = self._ahead.lines.pop(0)
            self._screen.line(f"> {safe(line)}", "")
            return line
        rest, self._ahead.rest = self._ahead.rest, ""
        return self._ask(rest).strip()

    def _say(self, text: str) -> bool:
        """Have something answered; return whether to go on."""
        handle = sys.stdin.fileno()
        stopping = False
        self._asked.clear()
        with key_by_key(handle), closing(Watch(self._talk.events(text), handle, self._ahead)) as watch:
            while True:
                try:
                    for event in watch:
                        self._heard(event, quiet=stopping)
                        watch.reply = (watch.reply or Ahead()) if self._asked else None
                    break
                except RepliedError as reply:
                    self._answer(reply.line)
                except (StoppedError, KeyboardInterrupt) as error:
                    if stopping:
                        if isinstance(error, StoppedError):
                            continue
                        self._screen.line("left; what was begun is stopped")
                        return False
                    stopping = True
                    self._talk.cancel()
        return True

    def _answer(self, line: str) -> None:
        """Answer the question that is shown."""
        answer = answer_of(line)
        if answer is None:
            self._screen.line(f"{short(line, 40)} is no answer; there are {CHOICES}.")
        elif self._asked:
            try:
                self._talk.answer(next(iter(self._asked)), answer)
            except RoostError as error:  # too late
                self._screen.line(f"· {error.message}")

    def _heard(self, event: dict[str, Json], *, quiet: bool) -> None:
        if event["type"] == "metrics":
            self._took.append(event)
        shown = next(iter(self._asked), "")
        if event["type"] == "question":
            self._asked[str(event["id"])] = event
            if shown:  # one at a time: an answer is to what was shown last
                return
        if event["type"] == "question.answered":
            self._asked.pop(str(event["id"]), None)
            if shown not in ("", event["id"]):
                return
        if not quiet or event["type"] in ("cancelled", "tool_result", "question.answered", "end", "error"):
            self._screen.show(event)
        if event["type"] == "question.answered" and self._asked and not quiet:
            self._screen.show(next(iter(self._asked.values())))

    # --- Commands -----------------------------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        commands: dict[str, Callable[[str], None]] = {
            "/help": self._help, "/new": self._new, "/sessions": self._sessions, "/resume": self._resume,
            "/use": self._resume, "/ss": self._sessions, "/think": self._think, "/mode": self._mode,
            "/cost": self._cost, "/undo": self._undo, "/workspaces": self._workspaces, "/workspace": self._workspace,
        }  # fmt: skip
        if word in commands:
            commands[word](rest)
        else:
            self._screen.line(f"{short(word, 40)} is not known; /help shows what is.")

    def _help(self, _rest: str) -> None:
        for name, about in COMMANDS.items():
            self._screen.line(f"{name:<12} {about}", "")
        self._screen.line(KEYS)

    def _new(self, _rest: str) -> None:
        self._talk.new()
        self._took.clear()
        self._screen.line("a new conversation")

    def _sessions(self, _rest: str) -> None:
        found = self._talk.listed()[:LISTED]
        self._listed = [str(one["id"]) for one in found]
        rows = [
            (n, one["id"], local_time(str(one["updated"])), one["messages"], short(one["title"], 50))
            for n, one in enumerate(found, start=1)
        ]
        print_table(["", "conversation", "last used", "messages", "title"], rows)

    def _resume(self, rest: str) -> None:
        if not rest:
            others = [
                str(one["id"]) for one in self._talk.listed() if one["id"] != self._talk.session and one["messages"]
            ]
            if not others:
                self._screen.line("there is no other conversation")
                return
            rest = others[0]
        wanted = rest
        if rest.isdigit():
            if not 0 < int(rest) <= len(self._listed):
                self._sessions("")
                self._screen.line("choose one of these: /resume NUMBER")
                return
            wanted = self._listed[int(rest) - 1]
        records = self._talk.use(wanted)
        self._took = [record["body"]["values"] for record in records if record["body"]["kind"] == "metrics"]
        said = [record["body"] for record in records if record["body"]["kind"] == "message"]
        self._screen.line(f"{len(said)} messages; the last ones:" if said else "nothing was said yet")
        for body in said[-SHOWN:]:
            self._screen.heading("you" if body["role"] == "user" else "roost")
            self._screen.whole(body["text"])

    def _think(self, _rest: str) -> None:
        self._screen.line("thoughts are " + ("shown" if self._talk.toggle_thinking() else "hidden"))

    def _mode(self, rest: str) -> None:
        held = self._talk.choose(mode=parse_mode(rest) if rest else None)
        self._screen.line(f"cost mode {held['cost_mode']} ({held['cost_mode_from']})")

    def _cost(self, _rest: str) -> None:
        if not self._took:
            self._screen.line("nothing yet")
            return
        rows: dict[tuple[str, str], list[float]] = {}
        for turn in self._took:
            for role, use in turn["roles"].items():
                row = rows.setdefault((role, str(use["model"])), [0, 0, 0, 0.0])
                for n, name in enumerate(("prompt_tokens", "cached_tokens", "completion_tokens", "seconds")):
                    row[n] += use[name]
        print_table(
            ["role", "model", "tokens in", "cached", "out", "seconds"],
            [(*names, *(int(n) for n in row[:3]), f"{row[3]:.1f}") for names, row in rows.items()],
        )
        tools, seconds = (sum(turn[name] for turn in self._took) for name in ("tools_run", "seconds"))
        self._screen.line(
            f"{len(self._took)} turns, {tools} calls, {seconds:.1f} s; the last one {self._took[-1]['seconds']:.1f} s"
        )

    def _undo(self, _rest: str) -> None:
        self._screen.line(safe(self._talk.undo()), "")

    def _workspaces(self, _rest: str) -> None:
        found = self._talk.workspaces()
        if found:
            print_table(["workspace", "machine", "folder"], found)
        else:
            self._screen.line(
                "none: name a folder with `roost workspace add PATH`, and start `roost worker` where it is"
            )

    def _workspace(self, rest: str) -> None:
        self._screen.line(f"workspace {safe(str(self._talk.choose(workspace=rest or None)['workspace']))}")


def line_editor(folder: Path) -> Callable[[str], str]:
    """Return what asks for a line, with editing, a history in `folder` and completion of commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    @keys.add("c-j")  # what Enter is that was pressed before the line was asked for
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    history: History = InMemoryHistory()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / "history"
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        history = FileHistory(str(file))
    except OSError as error:
        sys.stderr.write(f"(What you type is not kept: {error}.)\n")
    session: PromptSession[str] = PromptSession(
        history=history, multiline=True, key_bindings=keys, prompt_continuation="  ",
        completer=WordCompleter(list(COMMANDS), sentence=True), complete_while_typing=False,
    )  # fmt: skip
    return lambda ahead: session.prompt("> ", default=ahead)


def bare_editor(ahead: str) -> str:
    """Ask for a line without editing; nothing can be put before it."""
    del ahead
    return input("> ")
