"""From names to models whose file is known: those of a hub are locked on the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from roost.models.catalogue import Catalogue, Model
from roost.models.fetch import Places


def known_models(
    names: Iterable[str], catalogue: Catalogue, places: Places, lock: Path, *, dry_run: bool = False
) -> dict[str, Model]:
    """Return the named models; of one without size and hash the hub is asked, and its answer locked.

    Raises:
        RoostError: the catalogue has no such model, or the hub cannot say; with `dry_run` also a model that would
            have to be locked.
    """
    listed = {name: catalogue.listed(name) for name in names}
    return {
        name: model if isinstance(model, Model) else _locked(name, catalogue, places, lock, dry_run=dry_run)
        for name, model in listed.items()
    }


def _locked(name: str, catalogue: Catalogue, places: Places, lock: Path, *, dry_run: bool) -> Model:
    if dry_run:
        return catalogue.get(name)
    from roost.models.hub import default_hub, lock_model  # takes a second; only models of a hub need it

    return lock_model(name, catalogue.listed(name), lock, default_hub(places.extra_ca_bundle, places.notify))
