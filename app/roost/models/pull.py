"""From names to files that are known: those of a hub are locked on the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from roost.models.catalogue import Catalogue
from roost.models.fetch import Places
from roost.models.schema import Download, ListedDownload, beside, find_lock, known
from roost.ops.errors import RoostError


def known_downloads(
    references: Iterable[str], catalogue: Catalogue, places: Places, lock: Path, *, dry_run: bool = False
) -> dict[str, Download]:
    """Return the files of the named models, projector and adapters included, by their names in the lock file.

    Of one without size and hash the hub is asked, and its answer locked.

    Raises:
        RoostError: the catalogue has no such model, or the hub cannot say; with `dry_run` also a model that would
            have to be locked.
    """
    found: dict[str, Download] = {}
    for reference in references:
        model = catalogue.listed(reference)
        for name, item in {model.reference: model, **model.parts, **model.extras}.items():
            done = _known(name, item, catalogue, places, lock, dry_run=dry_run)
            found[name] = beside(found[model.reference], done) if name in model.parts else done
    return found


def _known(
    name: str, download: ListedDownload, catalogue: Catalogue, places: Places, lock: Path, *, dry_run: bool
) -> Download:
    found = known(download, find_lock(catalogue.locks, name, download))
    if found is not None:
        return found
    if dry_run:
        raise RoostError(f"Size and hash of {name} are not known yet.", fix=f"Run `sudo roost models pull {name}`.")
    from roost.models.hub import default_hub, lock_download  # takes a second; only models of a hub need it

    return lock_download(name, download, lock, default_hub(places.extra_ca_bundle, places.notify))
