"""`roost workspace`: the folders that the agent may work in, named by the user who runs the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roost.agent.tools.hubs import SHORT_DIGITS
from roost.cli.principal import identify, refuse_root, workspaces
from roost.cli.principal import trust as trusted
from roost.cli.show import print_json, print_table

app = typer.Typer(no_args_is_help=True)
ROOT = "Root has no workspaces: tools would act with root's rights."

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OwnerOption = Annotated[
    str,
    typer.Option(
        help="Name of the key whose conversations may use it, at the first hub at which its worker works; without it "
        "the key and the hub in use."
    ),
]


@app.command("add")
def add(
    path: Annotated[Path, typer.Argument(help="Folder of a project.")],
    *,
    name: Annotated[str, typer.Option(help="What it is called; else as the folder.")] = "",
    owner: OwnerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let the agent work in a folder: read and change what is in it, and run programs in it, sandboxed.

    Example: roost workspace add ~/projects/site
    """
    refuse_root(ROOT)
    if owner:
        added = workspaces().add(path, owner, name)
    else:
        whose = identify()
        added = whose.workspaces.add(path, whose.owner, name)
    if as_json:
        print_json(added.model_dump(mode="json"))
    else:
        print(f"{added.name}: {added.path}, for conversations of {added.owner}. `roost worker` gives it to the agent.")


@app.command("list")
def show_all(*, as_json: JsonOption = False) -> None:
    """List the folders.

    Example: roost workspace list
    """
    found = workspaces().all()
    if as_json:
        print_json([workspace.model_dump(mode="json") for workspace in found])
        return
    rows = [
        (w.name, w.path, w.owner, w.hub[:SHORT_DIGITS] or "the first", "" if w.path.is_dir() else "not there")
        for w in found
    ]
    print_table(["workspace", "folder", "key", "hub", ""], rows)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="See `roost workspace list`.")],
    *,
    owner: Annotated[str, typer.Option(help="Name of the key, where several have one of that name.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Let the agent work in a folder no longer. Its files stay.

    Example: roost workspace remove site
    """
    gone = workspaces().remove(name, owner)
    if as_json:
        print_json(gone.model_dump(mode="json"))
    else:
        print(f"{gone.name} is no workspace any more; its files stay in {gone.path}.")


@app.command("trust")
def trust(*, as_json: JsonOption = False) -> None:
    """Take the hub that answers now for the one that was there before, and give it that one's folders.

    A hub has an identity in the folder of its state. Where that was lost, or the hub was set up anew, workers and the
    technician refuse it until this was said.

    Example: roost workspace trust
    """
    refuse_root(ROOT)
    whose, got = trusted()
    if as_json:
        print_json({"owner": whose.owner, "hub": whose.hub, "workspaces": got})
    else:
        folders = f"It has {', '.join(got)} from the one before." if got else "It had no other before."
        print(f"The hub at {whose.access.base_url} is trusted for the key {whose.owner}. {folders}")
