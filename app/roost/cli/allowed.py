"""`roost allowed`: tools that run without a question, because the user of this key allowed them for good."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from roost.agent.permission.policy import ALLOWED_PATH
from roost.cli.api import Api, find_access
from roost.cli.show import plain, print_json, print_table
from roost.ops.errors import RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def show_all(*, as_json: JsonOption = False) -> None:
    """List what runs without a question: what was answered with "always" in a conversation or a job.

    Example: roost allowed list
    """
    with Api(find_access()) as api:
        found = api.get(ALLOWED_PATH)["data"]
    if as_json:
        print_json(found)
    else:
        print_table(
            ["tool", "since", "what"], [(one["tool"], one["at"][:10], plain(str(one["mark"]))) for one in found]
        )


@app.command("remove")
def remove(
    tools: Annotated[list[str], typer.Argument(help="Tools; or what `roost allowed list` shows under what.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Be asked again before these tools run.

    Example: roost allowed remove mcp__files__write
    """
    with Api(find_access()) as api:
        known = api.get(ALLOWED_PATH)["data"]
        doomed: list[dict[str, Json]] = []
        for name in tools:
            found = [one for one in known if name in (one["tool"], one["mark"])]
            if not found:
                raise RoostError(f"Nothing is allowed for good under {name!r}.", fix="See `roost allowed list`.")
            doomed += [one for one in found if one not in doomed]
        for one in doomed if not dry_run else []:
            api.remove(f"{ALLOWED_PATH}/{quote(str(one['mark']), safe='')}")
    if as_json:
        print_json([{**one, "removed": not dry_run} for one in doomed])
        return
    for one in doomed:
        print(plain(f"{one['mark']} {'would be' if dry_run else 'is'} asked about again"))
