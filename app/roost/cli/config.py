"""`roost config`: what is configured, where each value is from, and the way back to a default."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import yaml

from roost.cli.fleet_inventory import inventory_path, run_bootstrap
from roost.cli.show import print_json, print_table
from roost.fleet.artifacts.from_site import HOST_FILE, release_dir
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.host_file import merge
from roost.ops.site import Site, load_site
from roost.ops.variable_names import renamed
from roost.ops.variable_origins import Found, effective, layers_of, read
from roost.ops.variables import DEFAULTS

app = typer.Typer(
    no_args_is_help=True,
    help="Show what is configured and where it is from; go back to defaults.",
    epilog="Example: sudo roost config show --origin",
)
BAD_INPUT = 2
SECRET = re.compile(r"(password|passwd|secret|token)$")
HIDDEN = "(hidden)"
NamesArgument = Annotated[list[str] | None, typer.Argument(help="Variables; without one those that were set.")]


@app.command("show")
def show(
    names: NamesArgument = None,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Also say what each value hides.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Defaults too.")] = False,
    host: Annotated[str, typer.Option(metavar="NAME", help="A machine of the inventory; default: this one.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show variables with the place that their value is from: defaults, inventory, `--set`.

    What `roost limits set` overrides at run time stands in `roost limits`.

    Example: sudo roost config show --origin api_port
    """
    site = load_site()
    found = look(site, host)
    chosen = pick(found, names or [], str(release_dir() / DEFAULTS), everything=everything)
    if as_json:
        print_json(
            [
                {"name": f.name, "value": f.value, "origin": f.origin,
                 "hides": [{"origin": where, "value": value} for where, value in f.hidden]}
                for f in chosen
            ]
        )  # fmt: skip
        return
    if not chosen:
        print("Nothing is set; all variables have their defaults. `roost config show --all` lists them.")
        return
    rows: list[tuple[str, str, str]] = []
    for one in chosen:
        rows.append((one.name, written(one.value), one.origin))
        if origin:
            rows += [("", written(value), f"hidden: {where}") for where, value in one.hidden]
    print_table(["variable", "value", "from"], rows)


def look(site: Site, host: str = "") -> dict[str, Found]:
    """Return every variable of a machine; values of secrets are hidden."""
    inventory = inventory_path(site)
    name = host or (socket.gethostname() if inventory.exists() else "")
    if host and not inventory.exists():
        raise RoostError("No inventory is kept here.", fix="Leave out --host.", exit_code=BAD_INPUT)
    layers = layers_of(release_dir() / DEFAULTS, inventory if inventory.exists() else None, name, host_file(site))
    found = effective([replace(layer, values=_masked(layer.values)) for layer in layers])
    return {key: one for key, one in found.items() if not key.startswith("ansible_")}


def _masked(values: Mapping[str, object]) -> dict[str, object]:
    return {name: HIDDEN if SECRET.search(name) and value else value for name, value in values.items()}


def pick(found: Mapping[str, Found], names: list[str], defaults: str, *, everything: bool) -> list[Found]:
    """Return the variables that were asked for.

    Raises:
        RoostError: there is no such variable; exit code 6.
    """
    for name in names:
        if name not in found:
            said = renamed(name) or f"There is no variable {name}."
            raise RoostError(said, fix="Every variable: `roost config show --all`.", exit_code=NOT_FOUND)
    if names:
        return [found[name] for name in names]
    return [one for one in found.values() if everything or one.origin != defaults]


def written(value: object) -> str:
    """Return a value in one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def host_file(site: Site) -> Path:
    """Return where `--set` keeps what was chosen."""
    return site.api_key_file.parent.parent / HOST_FILE


@app.command("reset")
def reset(
    names: Annotated[list[str], typer.Argument(help="Variables that were set with `bootstrap.sh --set`.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Go back to what the inventory or the defaults say, and apply that.

    Example: sudo roost config reset monitoring
    """
    site = load_site()
    path = host_file(site)
    kept = read(path)
    for name in names:
        if name not in kept:
            raise RoostError(
                f"{name} is not set in {path}.",
                fix="See where it is from with `roost config show --origin`.",
                exit_code=NOT_FOUND,
            )
    merge(path.read_text(), dict.fromkeys(names), path)  # whether the file can be changed that way
    after = look(site)
    for name in names:
        below = after[name].hidden[0] if name in after and after[name].hidden else ("nowhere", None)
        print(f"{name}: {written(kept[name])} goes; {written(below[1])} from {below[0]} is what counts then.")
    if not dry_run:
        run_bootstrap(site, [word for name in names for word in ("--set", f"{name}=")])
