"""`roost images`: what the jobs run from, made, renewed and tidied."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from roost.cli.show import print_json, print_table
from roost.fleet.artifacts.ensure import Outcome, collect, ensure
from roost.fleet.artifacts.from_site import site_workshop
from roost.fleet.artifacts.listing import listed
from roost.ops.site import load_site

app = typer.Typer(help="Images and trees the jobs run from.", no_args_is_help=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def progress(*, quiet: bool) -> Callable[[str], None]:
    """Return what tells a waiting user the present step, with the seconds since the start, on standard error."""
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()

    def tell(step: str) -> None:
        if not quiet:
            console.print(f"{time.monotonic() - started:6.1f} s  {step}", markup=False, soft_wrap=True)

    return tell


def _report(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(outcome))
        return
    for name in outcome.built:
        print(f"made     {name}")
    for name in outcome.removed:
        print(f"removed  {name}")
    if not outcome.changed:
        print("Nothing to do: everything is there.")
    elif outcome.before and outcome.before != outcome.after:
        print("The jobs still run from what they had. `./bootstrap.sh` moves them over, one by one.")


@app.command("list")
def list_images(*, as_json: JsonFlag = False) -> None:
    """Show what is there, which is current, and what is in use."""
    rows = listed(site_workshop(load_site(), progress(quiet=True)))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    heads = ["artifact", "state", "in use", "size"]
    print_table(heads, [(row.artifact, row.state, "yes" if row.in_use else "no", row.size) for row in rows])


@app.command()
def build(*, as_json: JsonFlag = False) -> None:
    """Make what is missing, with the package versions decided earlier."""
    _report(ensure(site_workshop(load_site(), progress(quiet=as_json))), as_json=as_json)


@app.command()
def update(*, as_json: JsonFlag = False) -> None:
    """Look for newer package versions and make what they change; the previous ones stay."""
    outcome = ensure(site_workshop(load_site(), progress(quiet=as_json)), update=True)
    _report(outcome, as_json=as_json)


@app.command()
def gc(*, as_json: JsonFlag = False) -> None:
    """Remove what is older than the previous ones and in no use."""
    removed = collect(site_workshop(load_site(), progress(quiet=True)))
    if as_json:
        print_json({"removed": removed})
        return
    sys.stdout.write("".join(f"removed  {name}\n" for name in removed) or "Nothing to remove.\n")
