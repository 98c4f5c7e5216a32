"""`roost models show`, `pull` and `gc`: one model in full, its file fetched, and files that nobody needs removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from roost.cli.images import progress
from roost.cli.show import print_json, print_table, size
from roost.fleet.artifacts.from_site import site_choices, site_variables
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.fetch import Places, ensure_models, node_lock
from roost.models.gc import Unused, find_unused, remove
from roost.models.lock_file import default_path
from roost.models.pull import known_downloads
from roost.models.schema import Model, find_lock
from roost.models.store import State, model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NOT_LOCKED = "not locked"  # the state of a file of which nobody knows yet which one is meant


def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME[:QUANT]", help="A model of the catalogue.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of a model: its file, where it comes from, who serves it.

    Example: roost models show smollm2-135m-instruct
    """
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    model = catalogue.listed(name)
    known = catalogue.known(model)
    entry = find_lock(catalogue.locks, model.reference, model)
    facts: dict[str, object] = {
        "name": model.name,
        **model.model_dump(
            mode="json", exclude={"name", "file", "sources", "projector", "adapters"}, exclude_none=True
        ),
        "quantisations": list(catalogue.entries[model.name].quantisations),
        "custom": model.name in catalogue.custom,
        "file": model.file.name,
        "bytes": known.bytes if known else model.file.bytes,
        "sha256": known.file.sha256 if known else model.file.sha256,
        "state": whole_state(site.models_dir, known).value if known else NOT_LOCKED,
        "path": str(model_path(site.models_dir, known.file)) if known else None,
        "slots": [slot.slot for slot in site.slots if catalogue.listed(slot.model).name == model.name],
        "sources": [str(source) for source in model.sources],
        "projector": str(model.projector.sources[0]) if model.projector else None,
        "adapters": {key: str(adapter.sources[0]) for key, adapter in model.adapters.items()},
        "locked_commit": entry.commit if entry is not None and not model.file.is_known else None,
    }
    if as_json:
        print_json(facts)
        return
    rows = [
        (key.replace("_", " "), _text(key, value)) for key, value in facts.items() if value not in (None, [], {}, "")
    ]
    print_table(["", ""], rows)


def whole_state(models_dir: Path, model: Model) -> State:
    """Return the state of a model's file; of one in several parts, that of the first that is not right."""
    states = [state_of(models_dir, file) for file in model.files]
    return next((state for state in states if state is not State.VERIFIED), State.VERIFIED)


def _text(key: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, item in value.items() if (text := _text(name, item)))
    if value is None:
        return ""
    return size(value) if key == "bytes" and isinstance(value, int) else str(value)


def pull_models(
    names: Annotated[list[str], typer.Argument(metavar="NAME[:QUANT]...", help="Models of the catalogue.")],
    *,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="URL", help="Ask this node first (`roost models serve` there); may be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch model files that are not here: whole and verified, going on where an earlier run stopped.

    A model of a hub without size and hash in the catalogue is locked with what the hub says now. HF_ENDPOINT names
    another hub, HF_TOKEN opens gated models. Ends with 0 when all are here, 4 when only root may do it.

    Example: sudo roost models pull smollm2-135m-instruct --from https://192.0.2.7:8465
    """
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    tell = progress(quiet=as_json)
    places = site_places(site, tell, tuple(peers or ()))
    with _root_only("fetch models"):
        models = known_downloads(names, catalogue, places, default_path())
        done = ensure_models(models, places)
    if as_json:
        print_json([{"name": o.name, "path": str(o.path), "changed": o.changed, "source": o.source} for o in done])
        return
    for outcome in done:
        how = f"fetched from {outcome.source}" if outcome.source else "was here already"
        print(f"{outcome.name}: {outcome.path}, {how}.")


def collect_garbage(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them, as without --yes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List, or with --yes remove, model files that no slot serves, with their cached copies.

    Example: sudo roost models gc --yes
    """
    if yes and dry_run:
        raise RoostError("--yes and --dry-run exclude each other.", fix="Give one of them.", exit_code=2)
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    places = Places(site.models_dir, site.cache_dir)
    with _root_only("remove models"), node_lock(places, wanted=yes):
        unused = _unused(site, catalogue, places)
        freed = remove(unused) if yes else sum(item.frees for item in unused)
    if as_json:
        rows = [{**asdict(item), "path": str(item.path)} for item in unused]
        print_json({"removed": yes, "bytes": freed, "files": rows})
        return
    if not unused:
        print("Nothing to remove.")
        return
    print_table(["file", "frees", "why"], [(item.path, size(item.frees), item.why) for item in unused])
    print(f"{size(freed)} freed." if yes else f"{size(freed)} can be freed: sudo roost models gc --yes")


def _unused(site: Site, catalogue: Catalogue, places: Places) -> list[Unused]:
    # fails where it is not known what is needed
    needed = [file for slot in site.slots for file in catalogue.needed_files(slot.model)]
    return find_unused(places, needed, catalogue.known_files())


def site_places(site: Site, tell: Callable[[str], None], peers: tuple[str, ...] = ()) -> Places:
    """Return where the installation's models lie and come from."""
    choices = site_choices(site, site_variables(site))
    return Places(
        site.models_dir,
        site.cache_dir,
        offline_dir=choices.offline_dir,
        extra_ca_bundle=choices.extra_ca_bundle,
        peers=peers,
        peer_ca=site.nomad_ca,
        peer_identity=(site.nomad_cert, site.nomad_key),
        notify=tell,
    )


@contextmanager
def _root_only(what: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise RoostError(
            f"Only root may {what}: {error.filename} cannot be written.", fix="Run it with sudo.", exit_code=4
        ) from None
