"""`roost fleet snapshot`: Nomad's state as files that it can go back to."""

from __future__ import annotations

import http.client
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from roost.cli.show import print_json, print_table
from roost.fleet import node_identity, own_token, snapshots
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.nomad_setup import wait_for_leader
from roost.ops.site import Site, load_site

app = typer.Typer(no_args_is_help=True, help="Save Nomad's state, list what was saved, go back to it.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KEEP = 3
LEADER_S = 60.0


def folder_of(site: Site) -> Path:
    """Return where the role `snapshots` has them saved."""
    return site.state_dir / "snapshots"


def show(found: list[snapshots.Snapshot], *, as_json: bool) -> None:
    """Print snapshots."""
    if as_json:
        print_json([{**asdict(one), "path": str(one.path), "saved": one.saved.isoformat()} for one in found])
        return
    rows = [
        [
            str(one.path),
            f"{one.saved:%Y-%m-%d %H:%M} UTC",
            str(one.size_bytes),
            str(one.index) if one.index else "damaged",
        ]
        for one in found
    ]
    print_table(["file", "saved", "bytes", "index"], rows)


@app.command("save")
def save(
    *,
    out: Annotated[Path | None, typer.Option(help="Write it there, and remove no older one.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="How many are kept.")] = KEEP,
    as_json: AsJson = False,
) -> None:
    """Save Nomad's state: jobs, variables with the keys, access control. Servers do so by themselves.

    Example: sudo roost fleet snapshot save --out /root/nomad.snap
    """
    site = load_site()
    show([saved(site, keep, out)], as_json=as_json)


def saved(site: Site, keep: int, out: Path | None) -> snapshots.Snapshot:
    """Save Nomad's state with the token for that, where there is one that Nomad knows; else with the operator's.

    Raises:
        RoostError: it could not be saved.
    """
    own = site.nomad_token_file.with_name(own_token.FILE)
    now = datetime.now(UTC)
    if own.exists():
        try:
            nomad = NomadClient.from_site(site, token_file=own)
            return snapshots.save(nomad, folder_of(site), keep=keep, now=now, out=out)
        except NomadRefusedError as error:
            if error.status != http.client.FORBIDDEN:
                raise
    return snapshots.save(NomadClient.from_site(site), folder_of(site), keep=keep, now=now, out=out)


@app.command("list")
def listing(*, as_json: AsJson = False) -> None:
    """List the snapshots of this machine, the newest first.

    Example: sudo roost fleet snapshot list
    """
    show(snapshots.listing(folder_of(load_site())), as_json=as_json)


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="The snapshot.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file.")] = False,
) -> None:
    """Go back to a snapshot: what Nomad was told since is forgotten, on all servers.

    It belongs to the fleet's own secrets: the operator's token is that of the snapshot afterwards.

    Example: sudo roost fleet snapshot restore /var/lib/roost/snapshots/nomad-20260101T000000Z.snap
    """
    site = load_site()
    index, _ = snapshots.check(file)
    if dry_run:
        print(f"{file} is whole; it goes up to index {index}. Nothing was changed.")
        return
    if not yes:
        typer.confirm(f"Have Nomad forget all that came after index {index}?", abort=True)
    nomad = NomadClient.from_site(site)
    snapshots.restore(nomad, file)
    wait_for_leader(nomad, LEADER_S)
    missed = node_identity.renew(nomad)
    print(f"Nomad is at index {index} of {file} again. Run ./bootstrap.sh to bring jobs to what the release says.")
    if missed:
        print(f"Not reached: {', '.join(missed)}. That run begins their Nomad anew where the servers refuse it.")
