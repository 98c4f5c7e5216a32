"""From names to files that are known: those of a hub are locked on the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from roost.models.catalogue import Catalogue
from roost.models.fetch import Places
from roost.models.schema import Download, ListedDownload, beside, find_lock, known


def known_downloads(
    references: Iterable[str], catalogue: Catalogue, places: Places, lock: Path, *, dry_run: bool = False
) -> dict[str, Download]:
    """Return the files of the named models, projector and adapters included, by their names in the lock file.

    Of one without size and hash the hub is asked, and its answer locked; with `dry_run` it is left out, together with
    the further parts of its model: `Catalogue.unlocked` names it.

    Raises:
        RoostError: the catalogue has no such model, or the hub cannot say.
    """
    found: dict[str, Download] = {}
    for reference in references:
        model = catalogue.listed(reference)
        for name, item in {model.reference: model, **model.parts, **model.extras}.items():
            done = known(item, find_lock(catalogue.locks, name, item))
            if done is None and not dry_run:
                done = _locked(name, item, places, lock)
            if done is None or (name in model.parts and model.reference not in found):
                continue
            found[name] = beside(found[model.reference], done) if name in model.parts else done
    return found


def _locked(name: str, download: ListedDownload, places: Places, lock: Path) -> Download:
    from roost.models.hub import default_hub, lock_download  # takes a second; only models of a hub need it

    return lock_download(name, download, lock, default_hub(places.extra_ca_bundle, places.notify))
