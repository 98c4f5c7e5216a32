"""`roost memory`: what the agent remembers for the key that asks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from roost.agent.memory.facts import MOST_IDS
from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.sessions import days, written
from roost.cli.show import local_time, plain, print_json, print_table
from roost.ops.errors import USAGE, RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any

PATH = "/roost/v1/memory"
KINDS = ("fact", "profile", "instruction")
FORGET_NEEDS = "Name facts, or which with --older-than 90d, --source, --session or --all."

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KindOption = Annotated[str, typer.Option("--as", help=f"{', '.join(KINDS)}.", metavar="KIND")]


@app.command("list")
def show_all(*, kind: KindOption = "", as_json: JsonOption = False) -> None:
    """List what is remembered, the latest first.

    Example: roost memory list
    """
    query = f"?{urlencode({'kind': _kind(kind)})}" if kind else ""
    with Api(find_access()) as api:
        found = api.get(f"{PATH}{query}")["data"]
    _print(found, as_json=as_json)


@app.command("search")
def search(
    words: Annotated[list[str], typer.Argument(help="What it is about.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Search what is remembered, by words, and by meaning where there is an embedding model.

    Example: roost memory search what is the dog called
    """
    with Api(find_access()) as api:
        answer = api.get(f"{PATH}/search?" + urlencode({"q": " ".join(words), "limit": limit}))
    if as_json:
        print_json(answer)
        return
    _print(answer["data"], as_json=False)
    sys.stderr.write(f"searched by {answer['by']}{': ' * bool(answer['why'])}{answer['why']}\n")


@app.command("add")
def add(
    text: Annotated[
        str, typer.Argument(help="One fact, in a sentence; - reads facts from standard input, one a line.")
    ],
    *,
    kind: KindOption = "fact",
    source: Annotated[str, typer.Option(help="Where it is from.")] = "user",
    sensitive: Annotated[
        bool, typer.Option("--sensitive", help="It is private: told only to who asks for it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Have something remembered: a fact, something about you (profile), or what is to hold always (instruction).

    What looks like a password or a key is refused; addresses, accounts, illnesses and the like are marked as private.

    Example: roost memory add 'Answer in British English.' --as instruction
    """
    texts = [line.strip() for line in sys.stdin if line.strip()] if text == "-" else [text]
    with Api(find_access()) as api:
        made = [
            api.post(PATH, {"text": one, "kind": _kind(kind), "source": source, "sensitive": sensitive})
            for one in texts
        ]
    if as_json:
        print_json(made)
        return
    for fact in made:
        said = "remembered" if fact["new"] else "known already"
        print(f"{fact['id']} {said}{' (private)' if fact['sensitive'] else ''}: {plain(fact['text'])}")


@app.command("forget")
def forget(
    facts: Annotated[list[str] | None, typer.Argument(help="Ids of facts; see `roost memory list`.")] = None,
    *,
    older_than: Annotated[str, typer.Option(help="Those that are so old: 90d.")] = "",
    source: Annotated[str, typer.Option(help="Those of this source, `agent` say.")] = "",
    session: Annotated[str, typer.Option(help="Those of this conversation.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and forget nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget facts for good: by id, or all that fit what is given. There is no way back.

    Example: roost memory forget --older-than 365d --source agent --dry-run
    """
    if not (facts or older_than or source or session or everything):
        raise RoostError("That would be everything.", fix=FORGET_NEEDS, exit_code=USAGE)
    body: dict[str, Json] = {
        "ids": facts or [], "source": source, "session": session, "everything": everything, "dry_run": True,
    }  # fmt: skip
    if older_than:
        body["older_than_days"] = days(older_than)
    with Api(find_access()) as api:
        doomed = api.post(f"{PATH}/forget", body)["data"]
        if doomed and not dry_run:
            if not yes:
                _ask(doomed)
            found, doomed = doomed, []
            for start in range(0, len(found), MOST_IDS):
                ids = [fact["id"] for fact in found[start : start + MOST_IDS]]
                doomed += api.post(f"{PATH}/forget", {"ids": ids, "dry_run": False})["data"]
    if as_json:
        print_json([{**fact, "forgotten": not dry_run} for fact in doomed])
        return
    for fact in doomed:
        print(f"{fact['id']} {'would be forgotten' if dry_run else 'forgotten'}: {plain(fact['text'])}")
    print(f"{len(doomed)} facts")


@app.command("export")
def export(
    *,
    to: Annotated[Path | None, typer.Option(help="File to write; standard output without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of JSON lines.")] = False,
) -> None:
    """Write all that is remembered as JSON lines.

    Example: roost memory export --to memory.jsonl
    """
    with Api(find_access()) as api:
        facts = api.get(PATH)["data"]
    lines = "".join(json.dumps(fact, ensure_ascii=False) + "\n" for fact in facts)
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n" if as_json else lines
    if written(text, to):
        print(f"{len(facts)} facts in {to}")


def _print(facts: list[dict[str, Json]], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    print_table(
        ["fact", "since", "kind", "source", "private", "text"],
        [
            (f["id"], local_time(f["at"])[:10], f["kind"], f["source"], "yes" if f["sensitive"] else "", f["text"])
            for f in facts
        ],
    )


def _ask(doomed: list[dict[str, Json]]) -> None:
    if not sys.stdin.isatty():
        raise RoostError(f"{len(doomed)} facts would be forgotten for good.", fix="Say so with --yes.", exit_code=USAGE)
    for fact in doomed:
        print(f"{fact['id']} {plain(fact['text'])}")
    typer.confirm(f"Forget these {len(doomed)} facts for good?", abort=True)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise RoostError(f"There is no kind {text!r}.", fix=f"Use one of {', '.join(KINDS)}.", exit_code=2)
    return text
