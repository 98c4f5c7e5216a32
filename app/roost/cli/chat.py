"""`roost chat`: one answer, or a conversation."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from roost.cli.access import find_access
from roost.cli.agent import PATH, Talk, at_a_terminal, begin, chat_with
from roost.cli.api import Api, Ended, Options
from roost.cli.conversation import Conversation, Shelf
from roost.cli.lines import converse
from roost.cli.show import json_line, plain
from roost.hosts.accept import SYSTEM
from roost.ops.errors import RoostError

MAX_TOKENS = 1024  # a small model may repeat itself for ever
HELP = "/new starts a new conversation, /quit ends (so does Ctrl-D), Ctrl-C stops an answer."


@dataclass(frozen=True)
class Style:
    """How answers are shown."""

    as_json: bool
    stats: bool


def chat(
    text: Annotated[
        str | None, typer.Argument(help="What to ask; - reads it from standard input. Without it: a conversation.")
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="A model or slot; see `roost models`.")] = "auto",
    system: Annotated[str, typer.Option(help="The system message.")] = SYSTEM,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = MAX_TOKENS,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 always gives the same answer.")] = None,
    go_on: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last conversation.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens and tokens a second.")] = False,
    as_text: Annotated[bool, typer.Option("--plain", help="No styles and no line editing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each answer as a line of JSON.")] = False,
) -> None:
    """Talk to the agent at this terminal, or have one answer of a model. Answers appear as they are written.

    Without TEXT, at a terminal: the agent, which uses tools; /help there shows what it can. With TEXT, from a pipe
    (line by line) or with --model: a model, without tools.
    What was said to a model is kept below ~/.local/state/roost/chat. ROOST_API (http://127.0.0.1:8360, say) and
    ROOST_API_KEY name another API and key than this machine's.

    Example: roost chat 'What is the capital of France?'
    """
    words = (model, system, max_tokens, temperature)
    if text is None and at_a_terminal() and not (as_json or stats) and words == ("auto", SYSTEM, MAX_TOKENS, None):
        with Api(find_access()) as api:
            agent = Talk(api, _session(api, go_on=go_on), as_json=False)
            chat_with(agent, as_text=as_text)
        return
    shelf = Shelf.of_user()
    talk = (shelf.last() if go_on else None) or Conversation.begin(system)
    style = Style(as_json=as_json, stats=stats)
    with Api(find_access()) as api:
        speaker = Speaker(api, Options(model, max_tokens, temperature), shelf, style)
        if text is not None:
            speaker.ask(talk, sys.stdin.read() if text == "-" else text)
        else:
            converse(line_by_line(speaker, talk), HELP, interactive=sys.stdin.isatty())


def _session(api: Api, *, go_on: bool) -> str:
    """Return the conversation with the agent to begin with.

    Raises:
        RoostError: the API does not answer, or has no agent.
    """
    last = [str(one["id"]) for one in api.get(PATH)["data"] if one["messages"]] if go_on else []
    return last[0] if last else begin(api)


class Speaker:
    """Asks, shows the answer while it comes, and keeps the conversation."""

    def __init__(self, api: Api, options: Options, shelf: Shelf, style: Style) -> None:
        self._api = api
        self._options = options
        self._shelf = shelf
        self._style = style

    def ask(self, talk: Conversation, text: str) -> None:
        """Ask `text` in `talk`. A question without an answer (refused, cancelled) does not stay in it.

        Raises:
            RoostError: there is no answer.
            KeyboardInterrupt: the user cancelled.
        """
        if not text.strip():
            raise RoostError("There is no question.", fix="roost chat 'What is the capital of France?'", exit_code=2)
        messages = [*talk.messages, {"role": "user", "content": text}]
        pieces: list[str] = []
        ended: Ended | None = None
        began = time.monotonic()
        try:
            with closing(self._api.chat(messages, self._options)) as answer:  # closing it stops the model
                for piece in answer:
                    if isinstance(piece, Ended):
                        ended = piece
                        continue
                    pieces.append(piece)
                    if not self._style.as_json:
                        sys.stdout.write(plain(piece))
                        sys.stdout.flush()
        finally:
            if pieces and not self._style.as_json:
                print()
        reply = "".join(pieces)
        talk.messages = [*messages, {"role": "assistant", "content": reply}]
        self._shelf.keep(talk)
        self._tell(reply, ended, time.monotonic() - began)

    def _tell(self, reply: str, ended: Ended | None, seconds: float) -> None:
        if self._style.as_json:
            facts = asdict(ended) if ended else {}
            print(json_line({"answer": reply, "seconds": round(seconds, 3), **facts}), flush=True)
        elif ended and ended.finish_reason == "length":
            sys.stderr.write("(The answer was cut at its longest allowed length.)\n")
        if self._style.stats and ended and not self._style.as_json:
            rate = f", {ended.tokens_per_s:.1f} tokens/s" if ended.tokens_per_s else ""
            sys.stderr.write(f"({ended.model}: {ended.tokens} tokens{rate}, {seconds:.1f} s)\n")


def line_by_line(speaker: Speaker, talk: Conversation) -> Callable[[str], None]:
    """Return what takes the lines of a conversation, `/new` among them."""

    def take(line: str) -> None:
        nonlocal talk
        command = line.strip()
        if command == "/new":
            talk = Conversation.begin(talk.system)
        elif command.startswith("/") and " " not in command:
            sys.stderr.write(f"{command} is not known. {HELP}\n")
        else:
            speaker.ask(talk, line)

    return take
