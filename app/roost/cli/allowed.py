"""`roost allowed`: tools that run without a question, because the user of this key allowed them for good."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from roost.agent.channel.wire import TOOLS_PATH
from roost.agent.permission.policy import ALLOWED_PATH, mark_of
from roost.agent.tool import Permission, ToolSpec
from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.show import local_time, plain, print_json, print_table
from roost.ops.errors import NOT_FOUND, RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any
ASKED_BY_NAME = frozenset({Permission.FOREIGN, Permission.NETWORK})
"""Of other tools the question depends on what they are called with."""
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
            ["tool", "since", "what"],
            [(one["tool"], local_time(one["at"])[:10], plain(str(one["mark"]))) for one in found],
        )


@app.command("add")
def add(
    tools: Annotated[list[str], typer.Argument(help="Tools of connected workers that you would be asked about.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Allow tools for good without waiting for the question.

    A foreign tool that says of itself that it may be called twice is then called again by a job that lost its outcome.

    Example: roost allowed add mcp__wiki__search
    """
    with Api(find_access()) as api:
        specs = {spec.name: spec for one in api.get(TOOLS_PATH)["data"] for spec in [ToolSpec.model_validate(one)]}
        for name in tools:
            if name not in specs or specs[name].permission not in ASKED_BY_NAME:
                raise RoostError(
                    f"No connected worker has a tool {name} that is asked about by its name.",
                    fix="See `roost mcp test NAME` for the names of foreign tools, and `roost worker status`.",
                    exit_code=NOT_FOUND,
                )
        made = [{"tool": name, "mark": mark_of(specs[name])} for name in tools]
        for one in made:
            api.send("POST", ALLOWED_PATH, one)
    if as_json:
        print_json(made)
        return
    for one in made:
        print(plain(f"{one['mark']} runs without a question"))


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
                raise RoostError(
                    f"Nothing is allowed for good under {name!r}.", fix="See `roost allowed list`.", exit_code=NOT_FOUND
                )
            doomed += [one for one in found if one not in doomed]
        for one in doomed if not dry_run else []:
            api.remove(f"{ALLOWED_PATH}/{quote(str(one['mark']), safe='')}")
    if as_json:
        print_json([{**one, "removed": not dry_run} for one in doomed])
        return
    for one in doomed:
        print(plain(f"{one['mark']} {'would be' if dry_run else 'is'} asked about again"))
