"""`roost sessions`: conversations with the agent, of the key that asks."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.show import local_time, plain, print_json, print_table
from roost.ops.errors import USAGE, RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any

PATH = "/roost/v1/sessions"
RECORDS = 500
"""Fetched at a time."""
PURGE_NEEDS = "Name conversations, or which with --older-than 90d or --archived."

IdArgument = Annotated[str, typer.Argument(help="Id of a conversation; see `roost sessions list`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ArchivedOption = Annotated[bool, typer.Option("--archived", help="Those that were put away.")]


@app.command("list")
def show_all(*, archived: ArchivedOption = False, as_json: JsonOption = False) -> None:
    """List conversations, the latest first.

    Example: roost sessions list
    """
    with Api(find_access()) as api:
        found = _listed(api, archived=archived)
    if as_json:
        print_json(found)
        return
    rows = [(s["id"], local_time(s["updated"]), s["messages"], s["title"]) for s in found]
    print_table(["conversation", "last used", "messages", "title"], rows)


@app.command("show")
def show(session: IdArgument, *, as_json: JsonOption = False) -> None:
    """Show a conversation: what was said, and what was done.

    Example: roost sessions show 8f3k2m9q0a1b2c3d
    """
    with Api(find_access()) as api:
        found = whole(api, session)
    if as_json:
        print_json(found)
        return
    print(plain(f"{found['title'] or 'Untitled'}") + f"  ({found['id']}, since {local_time(found['created'])})")
    if found["damaged"]:
        sys.stderr.write(f"{found['damaged']} lines of its file are damaged and left out.\n")
    for record in found["records"]:
        if line := described(record["body"]):
            print(plain(f"\n{line}"))


@app.command("search")
def search(
    words: Annotated[list[str], typer.Argument(help="All of them must occur; the last may be a beginning.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Search what was said.

    Example: roost sessions search sourdough
    """
    with Api(find_access()) as api:
        hits = api.get(f"{PATH}/search?" + urlencode({"q": " ".join(words), "limit": limit}))["data"]
    if as_json:
        print_json(hits)
        return
    print_table(
        ["conversation", "title", "who", "said"],
        [(h["session"], h["title"], h["role"], " ".join(h["snippet"].split())) for h in hits],
    )


@app.command("export")
def export(
    session: IdArgument,
    *,
    to: Annotated[Path | None, typer.Option(help="File to write; standard output without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of JSON lines.")] = False,
) -> None:
    """Write a conversation with all its records as JSON lines.

    Example: roost sessions export 8f3k2m9q0a1b2c3d --to talk.jsonl
    """
    with Api(find_access()) as api:
        records = whole(api, session)["records"]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    text = json.dumps(records, indent=2, ensure_ascii=False) + "\n" if as_json else lines
    if written(text, to):
        print(f"{len(records)} records in {to}")


@app.command("archive")
def archive(
    sessions: Annotated[list[str], typer.Argument(help="Ids of conversations.")],
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take them out again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put conversations away: they are kept and found by a search, and no longer listed.

    Example: roost sessions archive 8f3k2m9q0a1b2c3d
    """
    with Api(find_access()) as api:
        done = [api.send("PATCH", _path(one), {"archived": not undo}) for one in sessions]
    if as_json:
        print_json(done)
        return
    for info in done:
        print(f"{info['id']} {'taken out' if undo else 'put away'}: {info['title'] or 'Untitled'}")


@app.command("purge")
def purge(
    sessions: Annotated[list[str] | None, typer.Argument(help="Ids of conversations.")] = None,
    *,
    older_than: Annotated[str, typer.Option(help="All that were not used for so many days: 90d.")] = "",
    archived: ArchivedOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove conversations for good. There is no way back; `archive` puts them away instead.

    Example: roost sessions purge --older-than 90d --dry-run
    """
    if not sessions and not older_than and not archived:
        raise RoostError("That would be every conversation.", fix=PURGE_NEEDS, exit_code=USAGE)
    before = datetime.now(UTC) - timedelta(days=days(older_than)) if older_than else None
    with Api(find_access()) as api:
        if sessions:
            doomed = [{**api.get(f"{_path(one)}?limit=1"), "records": None} for one in sessions]
        else:
            doomed = _listed(api, archived=archived)
        doomed = [one for one in doomed if before is None or datetime.fromisoformat(one["updated"]) < before]
        if doomed and not dry_run and not yes:
            _ask(doomed)
        for one in doomed if not dry_run else []:
            api.remove(_path(one["id"]))
    if as_json:
        print_json([{"id": one["id"], "title": one["title"], "removed": not dry_run} for one in doomed])
        return
    for one in doomed:
        print(f"{one['id']} {'would be removed' if dry_run else 'removed'}: {one['title'] or 'Untitled'}")
    print(f"{len(doomed)} conversations")


def written(text: str, to: Path | None) -> bool:
    """Print an export, or write it to a file that is not there yet; say whether it was a file.

    Raises:
        RoostError: the file is there already, or cannot be written.
    """
    if to is None:
        print(text, end="")
        return False
    try:
        with to.open("x") as stream:
            stream.write(text)
    except FileExistsError:
        raise RoostError(f"{to} is there already.", fix="Name another file.") from None
    except OSError as error:
        raise RoostError(f"{to} cannot be written: {error.strerror}.", fix="Name a file that can be.") from None
    return True


def days(text: str) -> int:
    """Return the number of days of `90d`.

    Raises:
        RoostError: it is something else.
    """
    if text.endswith("d") and text[:-1].isdigit() and len(text) <= 6:
        return int(text[:-1])
    raise RoostError(f"{text!r} is no age.", fix="Write 90d, say.", exit_code=USAGE)


def described(body: dict[str, Json]) -> str:
    """Return a record for people; '' for what they need not see."""
    match body["kind"]:
        case "message":
            who = body["speaker"] or body["role"]
            return f"{who}: {body['text']}"
        case "tool_call":
            call = body["call"]
            return f"  → {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}"
        case "tool_result":
            result = body["result"]
            first = (result["text"].splitlines() or [""])[0]
            return f"  ← {result['outcome']}: {first[:200]}"
        case "event":
            return f"  · {body['name']}"
        case _:
            return ""


def whole(api: Api, session: str) -> dict[str, Json]:
    """Return a conversation with all its records, fetched in pieces."""
    found = dict(api.get(f"{_path(session)}?limit={RECORDS}"))
    more = found.pop("more", False)
    while more:
        page = api.get(f"{_path(session)}?limit={RECORDS}&after={found['records'][-1]['seq']}")
        found["records"] += page["records"]
        found["damaged"] = max(found["damaged"], page["damaged"])
        more = page["more"]
    return found


def _ask(doomed: list[dict[str, Json]]) -> None:
    if not sys.stdin.isatty():
        raise RoostError(
            f"{len(doomed)} conversations would be removed for good.", fix="Say so with --yes.", exit_code=USAGE
        )
    for one in doomed:
        print(f"{one['id']} {one['title'] or 'Untitled'}")
    typer.confirm(f"Remove these {len(doomed)} conversations for good?", abort=True)


def _listed(api: Api, *, archived: bool) -> list[dict[str, Json]]:
    return list(api.get(f"{PATH}?archived={str(archived).lower()}")["data"])


def _path(session: str) -> str:
    return f"{PATH}/{quote(session, safe='')}"
