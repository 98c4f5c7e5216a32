"""`roost fleet access`: tokens of Nomad for people and programs, each with the rights of a role."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from roost.cli.show import local_time, print_json, print_table
from roost.fleet import access, own_token
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError
from roost.ops.site import load_site

app = typer.Typer(no_args_is_help=True, help="Give out, show and revoke Nomad tokens of a role.")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _client() -> NomadClient:
    return NomadClient.from_site(load_site())


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose token it is.")],
    *,
    role: Annotated[str, typer.Option(help=f"What it may: {', '.join(access.ROLES)}.")],
    ttl: Annotated[int, typer.Option(help="Seconds after which it ends; default: when it is revoked.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a token; its secret is shown this once.

    Example: sudo roost fleet access add dashboard --role read-only
    """
    if own_token.is_own(name):
        raise RoostError(
            f"Names like {name} are those of the servers' own tokens, which end with their servers.",
            fix="Choose another name.",
            exit_code=access.BAD_INPUT,
        )
    made, secret = access.grant(_client(), name, role, ttl)
    if as_json:
        print_json({**asdict(made), "secret": secret})
        return
    print(f"{secret}\n\n{name} {access.ROLES[role]}. For Nomad's own programs: NOMAD_TOKEN.")


@app.command("list")
def listed(*, as_json: JsonOption = False) -> None:
    """Show the tokens that were given out.

    Example: sudo roost fleet access list
    """
    found = access.grants(_client())
    if as_json:
        print_json([asdict(one) for one in found])
        return
    print_table(
        ["name", "role", "made", "ends"],
        [(g.name, g.role, local_time(g.created), local_time(g.expires) or "never") for g in found],
    )


@app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """End a token, at once.

    Example: sudo roost fleet access revoke dashboard
    """
    access.revoke(_client(), name)
    print(f"The token {name} is ended.")


@app.command("roles")
def roles(*, as_json: JsonOption = False) -> None:
    """Show the roles, and with --json their policies.

    Example: roost fleet access roles
    """
    if as_json:
        print_json([{"role": r, "what": what, "rules": access.policy_rules(r)} for r, what in access.ROLES.items()])
        return
    print_table(["role", "what it may"], list(access.ROLES.items()))
