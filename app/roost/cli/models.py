"""`roost models`: the catalogue, and what of it is here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import typer

from roost.cli.access import find_access_of
from roost.cli.api import Api
from roost.cli.model_estimate import estimate_model
from roost.cli.model_files import NOT_LOCKED, collect_garbage, pull_models, show_model, whole_state
from roost.cli.models_add import add_model, remove_model
from roost.cli.show import print_json, print_table, size
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.present import Found, found_models
from roost.models.schema import TIERS, ModelFile
from roost.models.store import State, forget_stamp, model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

FOUND = "found"  # a file that lies here without an entry
app = typer.Typer(invoke_without_command=True)
app.command("show")(show_model)
app.command("pull")(pull_models)
app.command("gc")(collect_garbage)
app.command("estimate")(estimate_model)
app.command("add")(add_model)
app.command("remove")(remove_model)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class QuantisationRow:
    """One quantisation of a model. `file` says what lies at its place, `slots` who serves it; size in bytes, None while
    nobody knows which file is meant."""

    quantisation: str
    file: str
    size: int | None
    slots: tuple[str, ...]
    path: str | None


@dataclass(frozen=True)
class ModelRow:
    """One model of the catalogue. `quantisation`, `file`, `size`, `path` are those of the one that is served or here,
    else of the preferred one; `slots` are all that serve the model."""

    name: str
    title: str
    licence: str
    roles: dict[str, int]
    tier: str
    context_length: int
    custom: bool
    quantisation: str
    size: int | None
    file: str
    slots: tuple[str, ...]
    path: str | None
    quantisations: tuple[QuantisationRow, ...]
    states: dict[str, str] = field(default_factory=dict)  # by slot, as the agent sees them


@app.callback()
def models(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Show the models of the catalogue: which are here, which are served, roles, tier, size, licence.

    Example: roost models --json
    """
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@app.command("list")
def list_command(*, as_json: JsonOption = False) -> None:
    """Show the models of the catalogue; the same as `roost models` alone.

    Example: roost models list --json
    """
    _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    site = load_site()
    listed = load_catalogue(site.catalogue)
    found = found_models(listed, site.models_dir, dry_run=True)
    rows = with_states(list_models(site, listed) + found_rows(site, found.beside(listed), found), site)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ["model", "file", "served as", "tier", "roles", "size", "quantisations", "context", "licence"],
        [
            (
                row.name,
                row.file,
                ", ".join(f"{slot} ({row.states[slot]})" for slot in row.slots),
                row.tier,
                ", ".join(row.roles),
                "" if row.size is None else size(row.size),
                ", ".join(_marked(row, q) for q in row.quantisations),
                row.context_length,
                row.licence,
            )
            for row in rows
        ],
    )
    for path, why in found.passed_over.items():
        print(f"{path}: passed over, {why}")


def _marked(row: ModelRow, one: QuantisationRow) -> str:
    """Mark the quantisations that are here, where there is a choice."""
    here = len(row.quantisations) > 1 and one.file == State.VERIFIED.value
    return f"{one.quantisation} (here)" if here else one.quantisation


@app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME[:QUANT]]...", help="Models to verify; all that are here if none."),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Read model files from the first to the last byte and compare them with their checksums.

    Ends with 0 when all are right, else with 1.

    Example: roost models verify
    """
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    chosen = named(catalogue, names) if names else present(site, catalogue)
    results = {name: state_of(site.models_dir, file, rehash=True) for name, file in chosen.items()}
    if as_json:
        print_json([{"name": name, "state": state.value} for name, state in results.items()])
    else:
        print_table(["model", "file"], [(name, state.value) for name, state in results.items()])
    bad = [name for name, state in results.items() if state is not State.VERIFIED]
    if bad:
        for name in bad:
            _distrust(site, chosen[name])
        raise RoostError(f"Not right: {', '.join(bad)}.", fix="Run ./bootstrap.sh; it fetches such files again.")


@app.command("serve")
def serve_models(
    listen: Annotated[str, typer.Option("--listen", metavar="ADDR:PORT", help="Where to answer, e.g. 192.0.2.7:8465.")],
) -> None:
    """Let other nodes of the fleet fetch model files from here, until it is stopped.

    Only over TLS, and only for who shows a certificate of the fleet's CA. On the other node: roost models pull NAME
    --from https://ADDR:PORT

    Example: sudo roost models serve --listen 192.0.2.7:8465
    """
    from roost.cli.model_serve import run  # a web server takes two seconds to import

    run(listen, load_site())


def list_models(site: Site, catalogue: Catalogue) -> list[ModelRow]:
    """Return a row for each model of the catalogue: those that are served first, then by tier."""
    served: dict[str, list[str]] = {}
    for slot in site.slots:
        served.setdefault(catalogue.listed(slot.model).reference, []).append(slot.slot)
    rows: dict[str, list[QuantisationRow]] = {}
    for model in catalogue.all():
        known = catalogue.known(model)
        row = QuantisationRow(
            quantisation=model.quantisation,
            file=whole_state(site.models_dir, known).value if known else NOT_LOCKED,
            size=known.bytes if known else model.file.bytes,
            slots=tuple(served.get(model.reference, ())),
            path=str(model_path(site.models_dir, known.file)) if known else None,
        )
        rows.setdefault(model.name, []).append(row)
    found = [_row(name, quantisations, catalogue) for name, quantisations in rows.items()]
    return sorted(found, key=lambda row: (not row.slots, TIERS.index(row.tier), row.name))


def found_rows(site: Site, catalogue: Catalogue, found: Found) -> list[ModelRow]:
    """Return a row for each model whose files lie here without an entry."""
    rows = [row for row in list_models(site, catalogue) if row.name in found.entries]
    return [
        replace(
            row,
            custom=False,
            file=FOUND,
            path=str(found.path_of(row.name, row.quantisation)),
            quantisations=tuple(
                replace(q, file=FOUND, path=str(found.path_of(row.name, q.quantisation))) for q in row.quantisations
            ),
        )
        for row in rows
    ]


def with_states(rows: list[ModelRow], site: Site) -> list[ModelRow]:
    """Add the state of each slot, warm or cold; the agent tells it without a key."""
    with Api(find_access_of(site)[0]) as api:
        seen = api.readiness()
    return [replace(row, states={slot: seen.state_of(slot) for slot in row.slots}) for row in rows]


def _row(name: str, quantisations: list[QuantisationRow], catalogue: Catalogue) -> ModelRow:
    entry = catalogue.entries[name]
    first = min(quantisations, key=lambda q: (not q.slots, q.file in {State.MISSING.value, NOT_LOCKED}))
    return ModelRow(
        name=name,
        title=entry.title,
        licence=entry.licence,
        roles={str(role): preference for role, preference in entry.roles.items()},
        tier=entry.tier,
        context_length=entry.context_length,
        custom=name in catalogue.custom,
        quantisation=first.quantisation,
        size=first.size,
        file=first.file,
        slots=tuple(slot for q in quantisations for slot in q.slots),
        path=first.path,
        quantisations=tuple(quantisations),
    )


def named(catalogue: Catalogue, references: list[str]) -> dict[str, ModelFile]:
    """Return the files of the named models, by `NAME:QUANT`."""
    files = catalogue.known_files()
    models = [catalogue.get(reference) for reference in references]
    return {name: files[name] for model in models for name in (model.reference, *model.parts)}


def present(site: Site, catalogue: Catalogue) -> dict[str, ModelFile]:
    """Return the files that are here, and those that a slot needs, by `NAME:QUANT`."""
    needed = {file for slot in site.slots for file in catalogue.needed_files(slot.model)}
    files = catalogue.known_files()
    return {n: file for n, file in files.items() if file in needed or model_path(site.models_dir, file).exists()}


def _distrust(site: Site, file: ModelFile) -> None:
    """Make the next run look at the file again, as far as this user may."""
    try:
        forget_stamp(model_path(site.models_dir, file))
    except PermissionError:
        raise RoostError(
            "A model file is wrong, and only root can have it replaced.",
            fix="Run `sudo roost models verify`, then ./bootstrap.sh.",
            exit_code=4,
        ) from None
