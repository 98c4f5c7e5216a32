"""`roost agent`: talk to the agent, which uses tools, and see what it does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Annotated, Any
from urllib.parse import quote

import typer

from roost.agent.permission.policy import Answer
from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.conversation import Shelf
from roost.cli.lines import converse
from roost.cli.sessions import whole
from roost.cli.show import json_line, local_time, plain, print_table
from roost.context.budget import CostMode
from roost.context.modes import parse_mode
from roost.ops.errors import RoostError

Json = Any
PATH = "/roost/v1/sessions"
SHOWN_CHARACTERS = 160
WORKERS = "/roost/v1/workers"
UNDO_TIMEOUT_S = 90.0
HELP = (
    "/new, /sessions, /use ID, /think, /mode fast|smart|max, /workspaces, /workspace NAME, /undo, /cost, /quit. "
    "Ctrl-C stops an answer."
)


def agent(
    text: Annotated[
        str | None, typer.Argument(help="What to do; - reads it from standard input. Without it: a conversation.")
    ] = None,
    *,
    session: Annotated[str, typer.Option(help="Go on with this conversation; see `roost sessions list`.")] = "",
    workspace: Annotated[str, typer.Option(help="Folder to work in: NAME or MACHINE/NAME.")] = "",
    mode: Annotated[str, typer.Option(help="Cost mode of this conversation: fast, smart, max.")] = "",
    allow: Annotated[
        list[str] | None, typer.Option(help="A tool that may be called without asking; may be given several times.")
    ] = None,
    think: Annotated[bool, typer.Option("--think", help="Show what the model thinks.")] = False,
    as_text: Annotated[bool, typer.Option("--plain", help="No styles and no line editing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Talk to the agent. It uses tools, and shows which and what came of it.

    In a conversation at a terminal you are asked before what cannot be undone is called. With TEXT, from a pipe or
    with --json nobody can be asked: such a call is refused unless its tool stands in --allow.

    Example: roost agent 'What is in README.md?'
    """
    with Api(find_access()) as api:
        talk = Talk(api, session or begin(api), as_json=as_json, allow=tuple(allow or ()))
        if think or mode or workspace:
            talk.choose(think=think or None, mode=parse_mode(mode) if mode else None, workspace=workspace or None)
        if text is not None:
            talk.say(sys.stdin.read() if text == "-" else text)
        elif at_a_terminal() and not as_json:
            chat_with(talk, think=think, as_text=as_text)
        else:
            converse(line_by_line(talk), HELP, interactive=sys.stdin.isatty())


def at_a_terminal() -> bool:
    """Say whether a person sits there: both ways."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def chat_with(talk: Talk, *, think: bool = False, as_text: bool = False) -> None:
    """Open the terminal chat."""
    # imported here: a single answer needs none of it
    from roost.cli.chatting.chat import Chat, bare_editor, line_editor
    from roost.cli.chatting.screen import Screen

    rich = not as_text and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    talk.thinks = think
    Chat(talk, Screen(rich=rich), bare_editor if as_text else line_editor(Shelf.of_user().folder)).run()


class Talk:
    """One conversation at a terminal."""

    def __init__(self, api: Api, session: str, *, as_json: bool, allow: Sequence[str] = ()) -> None:
        self._api = api
        self.session = session
        self._as_json = as_json
        self._allowed = {"allow": list(allow)} if allow else {}  # a hub of the version before knows no such field
        self.thinks = False
        self._last: dict[str, Json] = {}
        self._in_line = False  # of an answer that is being written

    def say(self, text: str) -> None:
        """Say something and show what happens until it is answered.

        Raises:
            RoostError: there is nothing to say, or there was no answer.
            KeyboardInterrupt: the user stopped it; it is stopped at the agent too.
        """
        if not text.strip():
            raise RoostError("There is nothing to do.", fix="roost agent 'What is in README.md?'", exit_code=2)
        failed: dict[str, Json] | None = None
        body = {"text": text, "stream": True, **self._allowed}
        with closing(self._api.events(f"{self._path}/messages", body)) as events:  # closing it cancels the turn
            for event in events:
                if event["type"] == "error":
                    failed = event
                self._show(event)
        if failed:
            raise RoostError(str(failed["message"]), fix=str(failed.get("fix") or "Ask again."))

    def events(self, text: str) -> Iterator[dict[str, Json]]:
        """Say something and yield what happens until it is answered; questions meanwhile are for `answer`.

        Raises:
            RoostError: the API does not answer, refuses, or breaks off.
        """
        body = {"text": text, "stream": True, "answers": True, **self._allowed}
        return self._api.events(f"{self._path}/messages", body)

    def answer(self, question: str, answer: Answer) -> None:
        """Say whether a call may be made that is asked about.

        Raises:
            RoostError: it is not asked any more, or the API does not answer.
        """
        self._api.send("POST", f"{self._path}/questions/{quote(question, safe='')}", {"answer": answer.value})

    def cancel(self) -> bool:
        """End the turn under way; return whether there was one.

        Raises:
            RoostError: the API does not answer, or refuses.
        """
        return bool(self._api.send("POST", f"{self._path}/cancel", {}, timeout_s=UNDO_TIMEOUT_S)["cancelled"])

    def use(self, session: str) -> list[dict[str, Json]]:
        """Go on with another conversation; return its records.

        Raises:
            RoostError: there is no such one.
        """
        found = whole(self._api, session)
        self.session, self._last = str(found["id"]), {}
        if self.thinks:
            self.choose(think=True)
        return list(found["records"])

    def choose(self, *, think: bool | None = None, mode: CostMode | None = None, workspace: str | None = None) -> Json:
        """Change what holds for this conversation, return what holds."""
        body = {"think": think, "cost_mode": mode, "workspace": workspace}
        return self._api.post(
            f"{self._path}/choices", {name: value for name, value in body.items() if value is not None}
        )

    def cost(self) -> str:
        """Return what the last turn took, in a line."""
        if not self._last:
            return "nothing yet"
        parts = [
            f"{role} {use['model']}: {use['prompt_tokens']} tokens in ({use['cached_tokens']} cached), "
            f"{use['completion_tokens']} out, {use['seconds']:.1f} s"
            for role, use in self._last["roles"].items()
        ]
        tools = f"tools: {self._last['tools_run']} run, {self._last['tools_blocked']} blocked"
        return "\n".join([*parts, tools, f"{self._last['seconds']:.1f} s"])

    def toggle_thinking(self) -> bool:
        """Show thoughts from now on, or no longer."""
        self.thinks = not self.thinks
        self.choose(think=self.thinks)
        return self.thinks

    def listed(self) -> list[dict[str, Json]]:
        """Return this key's conversations."""
        return list(self._api.get(PATH)["data"])

    def workspaces(self) -> list[tuple[str, str, str]]:
        """Return the folders that connected workers give this key: name, machine, path."""
        found = self._api.get(WORKERS)["data"]
        return [(folder["name"], one["host"], folder["path"]) for one in found for folder in one["workspaces"]]

    def undo(self) -> str:
        """Put back the files that the last call of this conversation changed; return which.

        Raises:
            RoostError: nothing was put back.
        """
        done = self._api.send("POST", f"{self._path}/undo", timeout_s=UNDO_TIMEOUT_S)
        if done["outcome"] != "ok":
            raise RoostError(f"Nothing was put back: {done['text']}", fix="See /workspaces for what is connected.")
        return str(done["text"])

    def new(self) -> None:
        """Begin another conversation."""
        self.session, self._last = begin(self._api), {}
        if self.thinks:
            self.choose(think=True)

    @property
    def _path(self) -> str:
        return f"{PATH}/{quote(self.session, safe='')}"

    def _show(self, event: dict[str, Json]) -> None:
        if event["type"] == "metrics":
            self._last = event
        if self._as_json:
            print(json_line(event), flush=True)
        elif event["type"] == "text":
            sys.stdout.write(plain(event["text"]))
            sys.stdout.flush()
            self._in_line = not event["text"].endswith("\n")
        elif event["type"] == "end":
            print()
            self._in_line = False
        elif line := described(event):
            if self._in_line:
                print(flush=True)
                self._in_line = False
            sys.stderr.write(f"{line}\n")


def described(event: dict[str, Json]) -> str:
    """Return an event for people; '' for what they need not see."""
    return plain(_described(event))


def _described(event: dict[str, Json]) -> str:
    match event["type"]:
        case "tool_call":
            return f"→ {event['tool']} {_short(json.dumps(event['arguments'], ensure_ascii=False))}"
        case "tool_result" if event["outcome"] == "refused":
            return f"← refused {' '.join(event['text'].split())}"  # all of it: it says what to do
        case "tool_result":
            return f"← {event['outcome']} {_short(event['text'])}"
        case "thought":
            return f"({_short(event['text'].strip())})" if event["text"].strip() else ""
        case "notice" | "status":
            return f"· {event['text']}"
        case "cancelled":
            return "(cancelled)"
        case _:
            return ""


def line_by_line(talk: Talk) -> Callable[[str], None]:
    """Return what takes the lines of a conversation, commands among them."""

    def take(line: str) -> None:
        if line.strip().startswith("/"):
            _command(talk, line.strip())
        else:
            talk.say(line)

    return take


def _command(talk: Talk, line: str) -> None:
    word, _, rest = line.partition(" ")
    commands: dict[str, Callable[[str], None]] = {
        "/new": lambda _rest: talk.new(),
        "/sessions": lambda _rest: print_table(
            ["conversation", "last used", "title"],
            [(s["id"], local_time(s["updated"]), s["title"]) for s in talk.listed()],
        ),
        "/ss": lambda _rest: _command(talk, "/sessions"),
        "/use": lambda rest: setattr(talk, "session", rest.strip()),
        "/think": lambda _rest: print("thoughts are " + ("shown" if talk.toggle_thinking() else "hidden")),
        "/mode": lambda rest: print(f"cost mode {talk.choose(mode=parse_mode(rest) if rest else None)['cost_mode']}"),
        "/workspace": lambda rest: print(f"workspace {talk.choose(workspace=rest.strip() or None)['workspace']}"),
        "/workspaces": lambda _rest: _show_workspaces(talk),
        "/undo": lambda _rest: print(plain(talk.undo())),
        "/cost": lambda _rest: print(talk.cost()),
    }
    if word not in commands:
        sys.stderr.write(f"{word} is not known. {HELP}\n")
        return
    commands[word](rest)


def _show_workspaces(talk: Talk) -> None:
    found = talk.workspaces()
    if found:
        print_table(["workspace", "machine", "folder"], found)
    else:
        print("none: name a folder with `roost workspace add PATH`, and start `roost worker` where it is")


def begin(api: Api) -> str:
    """Begin a conversation with the agent; return its id.

    Raises:
        RoostError: the API does not answer, or has no agent.
    """
    return str(api.post(PATH, {})["id"])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"
