"""`roost limits`: how fast keys may be, tier by tier, and what they have left."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.keys import DryRunOption, FileOption, JsonOption, change_keys
from roost.cli.show import print_json, print_table
from roost.context.modes import Origin, chosen_mode, parse_mode, set_cost_mode
from roost.ops import api_keys
from roost.ops.api_keys import Tier, TierChange
from roost.ops.errors import USAGE, RoostError

app = typer.Typer(invoke_without_command=True)
Json = Any

TierArgument = Annotated[Tier, typer.Argument(help="The tier.")]
NumberOption = Annotated[int | None, typer.Option(min=0, help="0 for no bound.")]


@app.callback()
def show(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Show the limits of each tier, and what each key has left of them and of its budget.

    Example: roost limits
    """
    if context.invoked_subcommand:
        return
    with Api(find_access()) as api:
        found: dict[str, Json] = api.get("/v1/limits")
    if as_json:
        print_json(found)
        return
    heads = ["tier", "requests/min", "tokens/min", "at once", "waiting", ""]
    print_table(
        heads,
        [
            (t["tier"], *(t[n] or "unbounded" for n in ("requests", "tokens", "concurrent")), t["waiting"],
             "changed by `roost limits set`" if t["overridden"] else "")
            for t in found["tiers"]
        ],
    )  # fmt: skip
    print()
    print_table(
        ["key", "tier", "state", "requests left", "tokens left", "running", "waiting", "used of budget"],
        [
            (k["name"], k["tier"], k["state"], k["remaining"].get("requests", "unbounded"),
             k["remaining"].get("tokens", "unbounded"), k["running"], k["waiting"], _budget(k))
            for k in found["keys"]
        ],
    )  # fmt: skip


@app.command("set")
def change(
    tier: TierArgument,
    *,
    requests: NumberOption = None,
    tokens: NumberOption = None,
    concurrent: NumberOption = None,
    waiting: NumberOption = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Override numbers of a tier, over restarts and runs of the playbook, until `reset`. Per minute: requests, tokens.

    Example: roost limits set bulk --requests 30 --concurrent 1
    """
    wanted = TierChange(requests=requests, tokens=tokens, concurrent=concurrent, waiting=waiting)
    if wanted == TierChange():
        raise RoostError("No number was named.", fix="See `roost limits set --help`.", exit_code=USAGE)
    document = change_keys(file, lambda d: api_keys.with_tier(d, tier, wanted), dry_run=dry_run)
    _report(tier, document.tiers.get(tier), dry_run=dry_run, as_json=as_json)


@app.command("reset")
def reset(
    tier: TierArgument, *, file: FileOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Go back to the configured numbers of a tier (the variable api_tiers).

    Example: roost limits reset bulk
    """
    document = change_keys(file, lambda d: api_keys.with_tier(d, tier, None), dry_run=dry_run)
    _report(tier, document.tiers.get(tier), dry_run=dry_run, as_json=as_json)


@app.command("set-cost-mode")
def set_mode(
    mode: Annotated[str, typer.Argument(help="fast, smart, max; default goes back to the configured one.")],
    *,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose how much conversations with the agent may cost; every bound of theirs changes with it.

    A conversation that chose a mode of its own keeps it.

    Example: roost limits set-cost-mode fast
    """
    wanted = None if mode == "default" else parse_mode(mode)
    document = change_keys(file, lambda d: set_cost_mode(d, wanted), dry_run=dry_run)
    held = chosen_mode(document.cost_mode)
    overridden = held.origin is Origin.OVERRIDE
    if as_json:
        mode_now = held.mode.value if overridden else None
        print_json({"cost_mode": mode_now, "from": held.origin.value, "applied": not dry_run})
    else:
        said = f"{held.mode} ({held.origin})" if overridden else "of agent_cost_mode in group_vars"
        print(f"cost mode {said} {'would hold' if dry_run else 'holds'}.")


def _report(tier: Tier, change: TierChange | None, *, dry_run: bool, as_json: bool) -> None:
    numbers = change.model_dump(exclude_none=True) if change else {}
    if as_json:
        print_json({"tier": tier.value, "overridden": numbers, "applied": not dry_run})
        return
    said = ", ".join(f"{name} {value}" for name, value in numbers.items()) or "nothing"
    print(f"{tier.value}: {said} {'would be' if dry_run else 'is'} overridden.")


def _budget(key: dict[str, Json]) -> str:
    return ", ".join(
        f"{key['used'][name]} of {limit} {name.replace('_', ' ')}" for name, limit in key["budget"].items()
    )
