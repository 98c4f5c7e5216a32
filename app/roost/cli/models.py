"""`roost models`: the catalogue, and what of it is here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from roost.cli.model_files import NOT_LOCKED, collect_garbage, pull_models, show_model
from roost.cli.show import print_json, print_table, size
from roost.models.catalogue import Catalogue, ListedModel, Model, load_catalogue
from roost.models.store import State, forget_stamp, model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

app = typer.Typer(invoke_without_command=True)
app.command("show")(show_model)
app.command("pull")(pull_models)
app.command("gc")(collect_garbage)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class ModelRow:
    """One model of the catalogue. `file` says what lies at its place, `slots` who serves it; size in bytes,
    None while nobody knows which file is meant."""

    name: str
    title: str
    licence: str
    quantisation: str
    size: int | None
    context_length: int
    file: str
    slots: tuple[str, ...]
    path: str | None


@app.callback()
def models(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Show the models of the catalogue: which are here, which are served, size, licence.

    Example: roost models --json
    """
    if context.invoked_subcommand is not None:
        return
    site = load_site()
    rows = list_models(site, load_catalogue(site.catalogue))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ["model", "file", "served as", "size", "quantisation", "context", "licence"],
        [
            (
                r.name,
                r.file,
                ", ".join(r.slots),
                "" if r.size is None else size(r.size),
                r.quantisation,
                r.context_length,
                r.licence,
            )
            for r in rows
        ],
    )


@app.command("verify")
def verify_models(
    names: Annotated[list[str] | None, typer.Argument(help="Models to verify; all that are here if none.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Read model files from the first to the last byte and compare them with their checksums.

    Ends with 0 when all are right, else with 1.

    Example: roost models verify
    """
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    chosen = {name: catalogue.get(name) for name in names} if names else present(site, catalogue)
    results = {name: state_of(site.models_dir, model.file, rehash=True) for name, model in chosen.items()}
    if as_json:
        print_json([{"name": name, "state": state.value} for name, state in results.items()])
    else:
        print_table(["model", "file"], [(name, state.value) for name, state in results.items()])
    bad = [name for name, state in results.items() if state is not State.VERIFIED]
    if bad:
        for name in bad:
            _distrust(site, chosen[name])
        raise RoostError(f"Not right: {', '.join(bad)}.", fix="Run ./bootstrap.sh; it fetches such files again.")


def list_models(site: Site, catalogue: Catalogue) -> list[ModelRow]:
    """Return a row for each model of the catalogue, those that are served first."""
    rows = []
    listed: dict[str, ListedModel] = {**catalogue.models, **catalogue.unlocked}
    for name, model in listed.items():
        slots = tuple(slot.slot for slot in site.slots if slot.model == name)
        known = model.file if isinstance(model, Model) else None
        rows.append(
            ModelRow(
                name=name,
                title=model.title,
                licence=model.licence,
                quantisation=model.quantisation,
                size=model.file.bytes,
                context_length=model.context_length,
                file=state_of(site.models_dir, known).value if known else NOT_LOCKED,
                slots=slots,
                path=str(model_path(site.models_dir, known)) if known else None,
            )
        )
    return sorted(rows, key=lambda row: (not row.slots, row.name))


def present(site: Site, catalogue: Catalogue) -> dict[str, Model]:
    """Return the models whose file is here, and those that a slot needs."""
    needed = {slot.model for slot in site.slots}
    return {
        name: model
        for name, model in catalogue.models.items()
        if name in needed or model_path(site.models_dir, model.file).exists()
    }


def _distrust(site: Site, model: Model) -> None:
    """Make the next run look at the file again, as far as this user may."""
    try:
        forget_stamp(model_path(site.models_dir, model.file))
    except PermissionError:
        raise RoostError(
            "A model file is wrong, and only root can have it replaced.",
            fix="Run `sudo roost models verify`, then ./bootstrap.sh.",
            exit_code=4,
        ) from None
