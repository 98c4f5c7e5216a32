"""`roost bundle DIR`: a folder for machines without a network."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from roost.cli.images import progress
from roost.cli.show import print_json, print_table, size
from roost.fleet.artifacts.agent import running_python
from roost.fleet.artifacts.ensure import Workshop
from roost.fleet.artifacts.from_site import site_choices, site_docker, site_variables
from roost.fleet.bundle import fill, is_kept, recorded
from roost.fleet.bundle_parts import BundleWish, collect_items, host_packages, split_packages
from roost.ops.site import load_site


def bundle(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or a bundle to complete or renew.")],
    *,
    python: Annotated[
        list[str] | None, typer.Option(help="Python version of the machines, e.g. 3.11; may be given several times.")
    ] = None,
    package: Annotated[list[str] | None, typer.Option(help="A further Debian package to bring along.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would hold, write nothing into DIR.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a folder with all that ./bootstrap.sh --offline DIR needs on machines of this Debian and processor.

    Run it again when it was interrupted: it goes on where it stopped.
    Example: roost bundle /media/usb/roost
    """
    site = load_site()
    tell = progress(quiet=as_json)
    variables = site_variables(site)
    choices = site_choices(site, variables)
    workshop = Workshop(choices, site_docker(site), tell)
    variables = {**variables, "roost_runtime": site.runtime}
    packages = (*host_packages(variables), *(package or []))
    wish = BundleWish(tuple(python or [running_python()]), packages, split_packages(variables))
    known = recorded(folder)
    items = collect_items(site, workshop, wish, tell)
    if dry_run:
        rows = [(item.name, item.bytes, is_kept(folder, item.name, known)) for item in items]
        if as_json:
            print_json([{"name": name, "bytes": count, "there": there} for name, count, there in rows])
            return
        print_table(["file", "size", "there"], [(name, size(n), "yes" if there else "no") for name, n, there in rows])
        print(f"{len(rows)} files, {size(sum(count for _, count, _ in rows))}")
        return
    filled = fill(folder, items, arch=choices.arch, runtime=site.runtime, python=list(wish.python), notify=tell)
    if as_json:
        print_json(asdict(filled))
        return
    print(f"{filled.folder}: {filled.files} files, {size(filled.bytes)}; {filled.kept} were there already.")
    print(f"On a machine with the same Debian and {platform.machine()}: ./bootstrap.sh --offline {filled.folder}")
