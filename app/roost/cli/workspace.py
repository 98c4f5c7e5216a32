"""`roost workspace`: the folders that the agent may work in, named by the user who runs the worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from roost.agent.tools.workspaces import Workspaces
from roost.cli.api import Api, find_access
from roost.cli.show import print_json, print_table
from roost.ops.errors import RoostError

app = typer.Typer(no_args_is_help=True)
ROOT_FIX = (
    "Run it as the user whose files these are: `sudo -u NAME env ROOST_API_KEY=KEY roost …`, with a key of "
    "`sudo roost keys add NAME`."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OwnerOption = Annotated[
    str, typer.Option(help="Name of the key whose conversations may use it; without it that of ROOST_API_KEY.")
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
    refuse_root()
    added = workspaces().add(path, owner or owner_of_key(), name)
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
    rows = [(w.name, w.path, w.owner, "" if w.path.is_dir() else "not there") for w in found]
    print_table(["workspace", "folder", "key", ""], rows)


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


def workspaces() -> Workspaces:
    """Return this user's workspaces."""
    settings = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Workspaces(Path(settings) / "roost" / "workspaces.json", [state_folder()])


def state_folder() -> Path:
    """Return where this user's worker keeps outcomes and what undo needs."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "roost" / "worker"


def owner_of_key() -> str:
    """Return the name of the key in use.

    Raises:
        RoostError: the API does not answer, or refuses it.
    """
    with Api(find_access()) as api:
        return str(api.get("/v1/key")["name"])


def refuse_root() -> None:
    """Stop where root asks.

    Raises:
        RoostError: it is root.
    """
    if os.geteuid() == 0:
        raise RoostError("Root has no workspaces: tools would act with root's rights.", fix=ROOT_FIX, exit_code=2)
