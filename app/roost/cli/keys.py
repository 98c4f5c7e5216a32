"""`roost keys`: who may use the API, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from roost.cli.show import local_time, print_json, print_table
from roost.fleet.key_store import FileKeyStore, KeyStore, NomadKeyStore, update
from roost.fleet.nomad_api import NomadClient
from roost.ops import api_keys
from roost.ops.api_keys import FIRST_KEY, ApiKey, KeyDocument, Role, Tier
from roost.ops.errors import USAGE, RoostError
from roost.ops.site import load_site

app = typer.Typer(no_args_is_help=True)
Json = Any

NameArgument = Annotated[str, typer.Argument(help="Name of the key.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="File of the keys (ROOST_KEYS_FILE of a gateway without Nomad)."),
]
RoleOption = Annotated[Role | None, typer.Option(help="What it may do.")]
TierOption = Annotated[Tier | None, typer.Option(help="Limits of its rate; see `roost limits`.")]
ModelsOption = Annotated[str | None, typer.Option(help="Models or slots it may use, separated by commas; '' for all.")]
ExpiresOption = Annotated[str | None, typer.Option(help="12h, 30d, 2w, a date, or never.")]
OwnerOption = Annotated[str | None, typer.Option(help="Whose it is: a name, a team.")]
AmountOption = Annotated[int | None, typer.Option(min=0, help="Tokens; 0 for no bound.")]
MoneyOption = Annotated[float | None, typer.Option(min=0, help="Cost in the site's currency; 0 for no bound.")]


@dataclass(frozen=True)
class Made:
    """A key that was made: the only time that it is shown."""

    name: str
    key: str
    applied: bool


def store_of(file: Path | None) -> KeyStore:
    """Return where the keys are.

    Raises:
        RoostError: nothing is installed here, or this user may not ask Nomad.
    """
    return FileKeyStore(file) if file else NomadKeyStore(NomadClient.from_site(load_site()))


def change_keys(file: Path | None, change: api_keys.Change, *, dry_run: bool) -> KeyDocument:
    """Apply a change, or with `dry_run` only try it; return the document as it is then.

    Raises:
        RoostError: the change is not possible.
    """
    store = store_of(file)
    return change(store.load()[0]) if dry_run else update(store, change)


@app.command("add")
def add(
    name: NameArgument,
    *,
    role: RoleOption = None,
    models: ModelsOption = None,
    tier: TierOption = None,
    expires: ExpiresOption = None,
    owner: OwnerOption = None,
    tokens_per_day: AmountOption = None,
    tokens_per_month: AmountOption = None,
    cost_per_day: MoneyOption = None,
    cost_per_month: MoneyOption = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, this once.

    Example: roost keys add alice --role user --models main --expires 90d
    """
    now = datetime.now(UTC).replace(microsecond=0)
    secret = api_keys.new_secret()
    fields = _fields(role, models, tier, expires, owner, now)
    budget = _budget(tokens_per_day, tokens_per_month, cost_per_day, cost_per_month)
    key = api_keys.made_key(
        {"name": name, "sha256": api_keys.digest_of(secret), "created": now, **fields, "budget": budget}
    )
    change_keys(file, lambda document: api_keys.with_key(document, key), dry_run=dry_run)
    _show_secret(Made(name, "" if dry_run else secret, not dry_run), as_json=as_json)


@app.command("list")
def show_all(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """List the keys, those that expired or were revoked too.

    Example: roost keys list --json
    """
    now = datetime.now(UTC)
    document = store_of(file).load()[0]
    first = [] if file else [{"name": FIRST_KEY, "role": Role.ADMIN.value, "tier": Tier.CRITICAL.value,
                              "state": "active", "owner": "the file secrets/api-key"}]  # fmt: skip
    rows = [*first, *(key_row(key, now) for key in document.keys)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["key", "role", "state", "tier", "models", "expires", "owner"],
        [
            (r["name"], r["role"], r["state"], r["tier"], ", ".join(r.get("models") or ()) or "all",
             local_time(r.get("expires")), r.get("owner"))
            for r in rows
        ],
    )  # fmt: skip


@app.command("show")
def show(name: NameArgument, *, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Show one key; what it used is shown by `roost usage`.

    Example: roost keys show alice
    """
    row = key_row(api_keys.required(store_of(file).load()[0], name), datetime.now(UTC))
    if as_json:
        print_json(row)
    else:
        print_table(["", ""], [(field, _said(value)) for field, value in row.items() if value not in (None, "", {})])


@app.command("set")
def change(
    name: NameArgument,
    *,
    role: RoleOption = None,
    models: ModelsOption = None,
    tier: TierOption = None,
    expires: ExpiresOption = None,
    owner: OwnerOption = None,
    tokens_per_day: AmountOption = None,
    tokens_per_month: AmountOption = None,
    cost_per_day: MoneyOption = None,
    cost_per_month: MoneyOption = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Change what a key may do; what is not named stays.

    Example: roost keys set alice --tier bulk --tokens-per-day 200000
    """
    fields = _fields(role, models, tier, expires, owner, datetime.now(UTC))
    budget = _budget(tokens_per_day, tokens_per_month, cost_per_day, cost_per_month)
    if not fields and not budget:
        raise RoostError("Nothing to change was named.", fix="See `roost keys set --help`.", exit_code=USAGE)
    wanted = {**fields, **({"budget": budget} if budget else {})}
    document = change_keys(file, lambda d: api_keys.changed(d, name, wanted), dry_run=dry_run)
    row = key_row(api_keys.required(document, name), datetime.now(UTC))
    if as_json:
        print_json({**row, "applied": not dry_run})
    else:
        print(f"{name} {'would be' if dry_run else 'is'} changed: {', '.join(sorted(wanted))}.")


@app.command("rotate")
def rotate(
    name: NameArgument,
    *,
    grace: Annotated[int, typer.Option(min=0, max=90 * 24, help="Hours that the old key stays good.")] = 0,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret and show it, this once; name, rights and usage stay.

    Example: roost keys rotate alice --grace 24
    """
    secret = api_keys.new_secret()
    digest, now = api_keys.digest_of(secret), datetime.now(UTC).replace(microsecond=0)
    change_keys(file, lambda d: api_keys.rotated(d, name, digest, now, timedelta(hours=grace)), dry_run=dry_run)
    _show_secret(Made(name, "" if dry_run else secret, not dry_run), as_json=as_json)


@app.command("revoke")
def revoke(
    name: NameArgument,
    *,
    purge: Annotated[bool, typer.Option(help="Forget it too, so that its name is free again.")] = False,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key worthless within seconds; it stays in the list.

    Example: roost keys revoke alice
    """
    now = datetime.now(UTC).replace(microsecond=0)
    change_keys(file, lambda d: api_keys.without_key(d, name, now, purge=purge), dry_run=dry_run)
    if as_json:
        print_json({"name": name, "revoked": True, "purged": purge, "applied": not dry_run})
    else:
        print(f"{name} {'would be' if dry_run else 'is'} revoked{' and forgotten' if purge else ''}.")


def key_row(key: ApiKey, now: datetime) -> dict[str, Json]:
    """Return what is shown of a key; never a digest."""
    row: dict[str, Json] = key.model_dump(mode="json", exclude={"sha256", "previous_sha256"})
    return {**row, "state": key.state(now), "budget": key.budget.model_dump(exclude_defaults=True)}


def _fields(
    role: Role | None, models: str | None, tier: Tier | None, expires: str | None, owner: str | None, now: datetime
) -> dict[str, object]:
    given: dict[str, object] = {"role": role, "tier": tier, "owner": owner}
    if models is not None:
        given["models"] = tuple(part.strip() for part in models.split(",") if part.strip())
    found = {name: value for name, value in given.items() if value is not None}
    return found | ({"expires": api_keys.parse_expiry(expires, now)} if expires is not None else {})


def _budget(
    tokens_per_day: int | None, tokens_per_month: int | None, cost_per_day: float | None, cost_per_month: float | None
) -> dict[str, float]:
    given = {
        "tokens_per_day": tokens_per_day, "tokens_per_month": tokens_per_month,
        "cost_per_day": cost_per_day, "cost_per_month": cost_per_month,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _said(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {amount}" for name, amount in value.items())
    return (", ".join(value) or "all") if isinstance(value, list) else str(value)


def _show_secret(made: Made, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": made.name, "key": made.key or None, "applied": made.applied})
    elif made.applied:
        print(made.key)
        typer.echo(f"This is the key of {made.name}. It is shown only now; the API takes it within seconds.", err=True)
    else:
        print(f"A key named {made.name} would be made.")
