"""`roost models add` and `remove`: a user's own models beside those of the catalogue."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from roost.cli.images import progress
from roost.cli.model_files import site_places
from roost.cli.show import print_json, print_table, size
from roost.fleet.artifacts.from_site import HOST_FILE
from roost.models.add import Reach, Wanted, look_at
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.custom import Added, name_of, with_quantisation
from roost.models.custom_file import change_custom, listed_entry
from roost.models.estimate.header import estimate_header
from roost.models.footprint import HOST, LayerSplit, ServerSettings
from roost.models.lock_file import SHA256_HEX
from roost.models.schema import ListedEntry, Role
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

ESTIMATE_CONTEXT = 8192  # tokens that the printed estimate counts with
DEFAULT_WORTH = 60  # of a role that the user names without a preference
DryOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_model(
    what: Annotated[str, typer.Argument(metavar="FILE|URL|hf:REPO[:QUANT]", help="Where the model is.")],
    *,
    name: Annotated[str, typer.Option(help="Its name here; else made from what its header says.")] = "",
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE[=0-100]", help="What it is for; may be repeated; else guessed."),
    ] = None,
    sha256: Annotated[str, typer.Option(help="SHA-256 of the file, if it is known: it is then not read now.")] = "",
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Add a model of your own: its header is read, not the whole file, and kept in models_custom.

    It is then listed, pulled, estimated and placed like those of the catalogue. QUANT is a quantisation or a file of
    the repository; without it the best known one is taken, Q4_K_M first.

    Example: sudo roost models add hf:Qwen/Qwen3-8B-GGUF:Q4_K_M
    """
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    wanted = Wanted(what, _name(name), _roles(roles or []), _hash(sha256))
    places = site_places(site, progress(quiet=as_json))
    reach = Reach(places.cache_dir, places.extra_ca_bundle, places.notify)
    added = look_at(wanted, reach, dry_run=dry_run)
    _not_the_catalogues(added.name, catalogue)

    def put(before: dict[str, ListedEntry]) -> dict[str, ListedEntry]:
        there = before.get(added.name)
        return {**before, added.name: with_quantisation(there, added) if there else added.entry}

    entry = change_custom(_host_file(site), put, dry_run=dry_run)[added.name]
    _tell(replace(added, entry=entry), dry_run=dry_run, as_json=as_json)


def remove_model(
    name: Annotated[str, typer.Argument(help="A model that was added.")],
    *,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a model of your own out of models_custom. Its files stay until `roost models gc --yes`.

    Example: sudo roost models remove my-model
    """
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    found = catalogue.listed(name).name
    if found not in catalogue.custom:
        raise RoostError(f"{found} belongs to the catalogue, it was not added.", fix=f"Added are: {_names(catalogue)}.")
    serving = [slot.slot for slot in site.slots if catalogue.listed(slot.model).name == found]
    if serving:
        raise RoostError(
            f"{found} is served as {', '.join(serving)}.",
            fix="Choose another model in model_slots, then ./bootstrap.sh.",
        )

    def take(before: dict[str, ListedEntry]) -> dict[str, ListedEntry]:
        if found not in before:
            raise RoostError(
                f"{found} is not in this machine's host.yaml but comes from the inventory.",
                fix="Take it out of models_custom there, then run the playbook.",
            )
        return {key: entry for key, entry in before.items() if key != found}

    change_custom(_host_file(site), take, dry_run=dry_run)
    if as_json:
        print_json({"name": found, "removed": not dry_run})
        return
    print(f"{found} {'would be' if dry_run else 'was'} removed. Its files go with: sudo roost models gc --yes")


def _tell(added: Added, *, dry_run: bool, as_json: bool) -> None:
    reference = f"{added.name}:{added.quantisation}"
    memory = estimated_bytes(added)
    if as_json:
        print_json(
            {
                "name": added.name,
                "quantisation": added.quantisation,
                "added": not dry_run,
                "guessed": list(added.guessed),
                "memory_bytes": memory,
                "entry": listed_entry(added.entry),
            }
        )
        return
    entry, download = added.entry, added.entry.quantisations[added.quantisation]
    needs = f"about {size(memory)} with {min(ESTIMATE_CONTEXT, entry.context_length):,} tokens"
    rows = [
        ("title", entry.title), ("architecture", entry.architecture), ("parameters", f"{entry.parameters.total:,}"),
        ("context", f"{entry.context_length:,}"), ("licence", entry.licence), ("tier", entry.tier),
        ("roles", ", ".join(f"{role} {worth}" for role, worth in entry.roles.items())),
        ("file", download.file.name), ("size", size(download.file.bytes) if download.file.bytes else ""),
        ("from", str(download.sources[0])), ("projector", entry.projector.file.name if entry.projector else ""),
        ("memory", needs if memory else "cannot be estimated from its header"),
    ]  # fmt: skip
    print_table(["", ""], [row for row in rows if row[1]])
    if added.guessed:
        print(f"Guessed: {'; '.join(added.guessed)}. Say it with --name, --role, or in models_custom.")
    if dry_run:
        print(f"{reference} would be added.")
    else:
        print(f"{reference} was added. Fetch it with: sudo roost models pull {reference}")


def estimated_bytes(added: Added) -> int:
    """Return what a server of the model needs with one short request, all in the machine's memory; 0 if unknown."""
    settings = ServerSettings(context_size=min(ESTIMATE_CONTEXT, added.entry.context_length))
    try:
        return estimate_header(added.header, settings, LayerSplit()).on(HOST).total
    except RoostError:
        return 0


def _name(name: str) -> str:
    if name and name_of(name) != name:
        raise RoostError(
            f"{name!r} cannot be a name.", fix=f"Use small letters, digits, . _ and -: {name_of(name) or 'my-model'}.",
            exit_code=2,
        )  # fmt: skip
    return name


def _hash(text: str) -> str:
    if text and not re.match(SHA256_HEX, text.lower()):
        raise RoostError(f"{text!r} is not a SHA-256.", fix="Give its 64 hex digits.", exit_code=2)
    return text.lower()


def _roles(words: list[str]) -> dict[Role, int] | None:
    found: dict[Role, int] = {}
    for word in words:
        name, equals, worth = word.partition("=")
        role = next((known for known in get_args(Role) if known == name), None)
        if role is None or (equals and not (worth.isdigit() and int(worth) <= 100)):
            raise RoostError(
                f"{word!r} is not ROLE or ROLE=0-100.", fix=f"Roles are: {', '.join(get_args(Role))}.", exit_code=2
            )
        found[role] = int(worth) if equals else DEFAULT_WORTH
    return found or None


def _not_the_catalogues(name: str, catalogue: Catalogue) -> None:
    if name in catalogue.entries and name not in catalogue.custom:
        raise RoostError(
            f"The catalogue has a model called {name} already.",
            fix=f"Pull that one (`sudo roost models pull {name}`), or give yours another name with --name.",
        )


def _names(catalogue: Catalogue) -> str:
    return ", ".join(sorted(catalogue.custom)) or "none"


def _host_file(site: Site) -> Path:
    return site.api_key_file.parent.parent / HOST_FILE
