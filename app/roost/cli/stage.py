"""`roost stage ROOT`: a host of ours, put into the root folder of an image that is being built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from roost.cli.access import on_loopback
from roost.cli.images import progress
from roost.cli.show import print_json
from roost.fleet.artifacts.from_site import site_variables
from roost.fleet.stage.make import Request, stage_of
from roost.fleet.stage.write import changes, missing_sources, put
from roost.models.catalogue import load_catalogue
from roost.ops.errors import USAGE, RoostError
from roost.ops.freebsd_packages import all_packages
from roost.ops.site import load_site


def stage(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Root folder of the image, made by debootstrap, say.")],
    *,
    system: Annotated[Literal["linux", "freebsd"], typer.Option("--os", help="What the image will run.")] = "linux",
    model: Annotated[str, typer.Option(help="Model of the catalogue; else the one that this machine serves.")] = "",
    context_size: Annotated[int, typer.Option(min=0, help="Tokens of one request; 0 chooses.")] = 0,
    worker: Annotated[
        str, typer.Option(metavar="URL", help="FreeBSD: run the worker too, for the fleet's API at this address.")
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would change there; the cache here gets what has to be built for it."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put Roost into an image: users, services that start at boot, a model, sample configuration. No secrets: each host
    makes its own when it boots for the first time. Run it again to renew it; what you changed in agent.env stays.

    In the booted image `roost-host accept` walks through the acceptance.
    Example: roost stage /srv/images/node --os linux
    """
    if not root.is_dir():
        raise RoostError(
            f"{root} is no folder.", fix="Make the image's root first, for example with debootstrap.", exit_code=USAGE
        )
    if root.resolve() == Path("/"):
        raise RoostError("That is this machine itself.", fix="Use ./bootstrap.sh for it.", exit_code=USAGE)
    if os.geteuid() != 0 and not dry_run:
        raise RoostError("Files of an image belong to root.", fix="Run it with sudo.", exit_code=4)
    if worker:
        refuse_worker(worker, system)
    site = load_site()
    tell = progress(quiet=as_json)
    request = Request(root, system, model, context_size, worker.rstrip("/"))
    wanted = stage_of(request, site, site_variables(site), load_catalogue(site.catalogue), tell)
    if dry_run and (gone := missing_sources(wanted.parts)):
        raise RoostError(f"Missing: {', '.join(gone)}.", fix="Run ./bootstrap.sh, then stage again.")
    done = changes(root, wanted.parts) if dry_run else put(root, wanted.parts, tell)
    if as_json:
        print_json({"root": str(root), "release": wanted.release, "model": wanted.model, "changes": done})
        return
    for line in done:
        print(line)
    verb = "would change" if dry_run else "changed"
    print(f"{root} ({wanted.release}), model {wanted.model}: {len(done)} of {len(wanted.parts)} parts {verb}.")
    if system == "freebsd":
        more = all_packages() if worker else ()
        print(f"The image also needs: pkg -r ROOT install {' '.join(('llama-cpp', 'python3', *more))}")


def refuse_worker(api: str, system: str) -> None:
    """Stop where no worker is staged, or not for such an address.

    Raises:
        RoostError: the image runs Linux, or key and files would go over a network unencrypted.
    """
    if system != "freebsd":
        raise RoostError(
            "On Linux the worker is its user's own service.", fix="roost worker install, as that user.", exit_code=USAGE
        )
    try:
        where = urlsplit(api)
        # Who logs in stands in a file that all may read.
        is_address = bool(where.hostname) and not (where.username or where.password) and where.port != 0
    except ValueError:
        is_address = False
    if not is_address or (where.scheme != "https" and not (where.scheme == "http" and on_loopback(api))):
        raise RoostError(
            f"{api} is no https address.", fix="--worker https://HOST:PORT, or http://127.0.0.1:PORT of a tunnel.",
            exit_code=USAGE,
        )  # fmt: skip
