"""`roost fleet plan`: which machine runs which model, and which one stands in for it."""

from __future__ import annotations

from typing import Annotated

import typer

from roost.cli.show import print_json, print_table
from roost.fleet.fleet_file import NAME, document_of, read_fleet_plan
from roost.ops.errors import RoostError
from roost.ops.site import load_site


def show(
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Say why of each server.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what the last run planned: which machine runs which model, and which stands in for it. Changes nothing.

    What would be planned with other machines or slots is shown by `roost plan --hosts`.

    Example: roost fleet plan --explain
    """
    site = load_site()
    kept = read_fleet_plan(site.state_dir / NAME)
    if kept is None:
        raise RoostError(
            "No plan of a fleet is kept here.",
            fix=f"Run it on {site.fleet}, from which the fleet is set up." if site.fleet else "See `roost plan`.",
        )
    if as_json:
        jobs = [{"job": kept.job(p), "machine": p.host, "spares": list(p.spares)} for p in kept.plan.placed]
        print_json({**document_of(kept), "jobs": jobs})
        return
    heads = ["machine", "job", "model", "context", "spare", *(["why"] if explain else [])]
    print_table(
        heads,
        [
            [
                p.host,
                kept.job(p),
                f"{p.model}:{p.quantisation}",
                f"{p.settings.parallel} x {p.settings.context_size}",
                " ".join(p.spares),
                *([p.reason] if explain else []),
            ]
            for p in kept.plan.placed
        ],
    )
