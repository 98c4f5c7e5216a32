"""`roost skills`: ways that worked, kept for the key that asks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.show import local_time, plain, print_json, print_table
from roost.ops.errors import RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any

PATH = "/roost/v1/skills"
FENCE = "---"

NameArgument = Annotated[str, typer.Argument(help="Name of a skill; see `roost skills list`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def show_all(
    *,
    about: Annotated[str, typer.Option(help="Only those that this may be about, the most alike first.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List skills.

    Example: roost skills list --about 'compare two pages'
    """
    with Api(find_access()) as api:
        answer = api.get(f"{PATH}?{urlencode({'q': about})}" if about else PATH)
    if as_json:
        print_json(answer["data"])
    else:
        print_table(
            ["skill", "since", "source", "when it helps"],
            [(s["name"], local_time(s["at"])[:10], s["source"], s["description"]) for s in answer["data"]],
        )
    if answer["damaged"]:
        sys.stderr.write(f"Files that cannot be read: {', '.join(answer['damaged'])}\n")


@app.command("show")
def show(skill: NameArgument, *, as_json: JsonOption = False) -> None:
    """Show a skill as Markdown with its head.

    Example: roost skills show compare-two-pages > compare-two-pages.md
    """
    with Api(find_access()) as api:
        found = api.get(_path(skill))
    if as_json:
        print_json(found)
        return
    head = [f"{name}: {found[name]}" for name in ("name", "description", "source", "session", "at") if found[name]]
    print(plain("\n".join([FENCE, *head, FENCE, "", found["steps"]])))


@app.command("add")
def add(
    file: Annotated[
        Path, typer.Argument(help="Markdown with a head of name and description; see `roost skills show`.")
    ],
    *,
    as_json: JsonOption = False,
) -> None:
    """Write a skill of your own, in place of one of its name.

    Example: roost skills add compare-two-pages.md
    """
    from roost.agent.skills.skill import parse

    try:
        skill = parse(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise RoostError(f"{file} cannot be read: {error}.", fix="Name a Markdown file.") from None
    with Api(find_access()) as api:
        made = api.send("PUT", _path(skill.name), {"description": skill.description, "steps": skill.steps})
    if as_json:
        print_json(made)
    else:
        print(f"{made['name']} kept: {plain(made['description'])}")


@app.command("remove")
def remove(
    skills: Annotated[list[str], typer.Argument(help="Names of skills.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, and remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove skills for good.

    Example: roost skills remove compare-two-pages
    """
    with Api(find_access()) as api:
        doomed = [api.get(_path(one)) for one in skills]
        for one in doomed if not dry_run else []:
            api.remove(_path(one["name"]))
    if as_json:
        print_json([{"name": one["name"], "removed": not dry_run} for one in doomed])
        return
    for one in doomed:
        print(f"{one['name']} {'would be removed' if dry_run else 'removed'}: {plain(one['description'])}")


def _path(skill: str) -> str:
    return f"{PATH}/{quote(skill, safe='')}"
