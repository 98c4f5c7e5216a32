"""Which models of the catalogue can be had on this machine as it is: those that lie here, and those with a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from roost.models.catalogue import Catalogue
from roost.models.schema import ListedDownload, ListedModel, ModelFile
from roost.models.source_types import HubSource, PathSource
from roost.models.sources import find_in
from roost.models.store import State, state_of
from roost.ops.errors import RoostError


@dataclass(frozen=True)
class WhyNot:
    """Why a model cannot be had, and what would change that."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Reach:
    """What this machine can reach: an offline folder shuts out the network; `hub_problem` says why no hub answers.

    `here` are the SHA-256 of files that need no fetching.
    """

    here: frozenset[str] = frozenset()
    offline_dir: Path | None = None
    hub_problem: str = ""


def files_here(models_dir: Path, cache_dir: Path, catalogue: Catalogue) -> frozenset[str]:
    """Return the SHA-256 of the catalogue's files that lie here verified, or in the cache (looked at by size)."""
    files = set(catalogue.known_files().values())
    verified = {f.sha256 for f in files if state_of(models_dir, f) is State.VERIFIED}
    return frozenset(verified | {f.sha256 for f in files if _is_cached(cache_dir, f)})


def _is_cached(cache_dir: Path, file: ModelFile) -> bool:
    path = cache_dir / "models" / file.sha256
    return path.is_file() and path.stat().st_size == file.bytes


class Obtainable:
    """Answers for one catalogue on one machine."""

    def __init__(self, catalogue: Catalogue, reach: Reach) -> None:
        self._catalogue = catalogue
        self._reach = reach
        self._known = catalogue.known_files()

    def hub_source(self) -> HubSource | None:
        """Return a file that only a hub could give, or None where no hub is needed."""
        if self._reach.offline_dir is not None:
            return None
        missing = (download for model in self._catalogue.all() for _, download in self._missing(model))
        return next((download.hub_sources[0] for download in missing if only_hub(download)), None)

    def models(self) -> list[ListedModel]:
        """Return every model of the catalogue in every quantisation."""
        return list(self._catalogue.all())

    def lies_here(self, model: ListedModel) -> bool:
        """Say whether nothing of a model needs fetching."""
        return next(self._missing(model), None) is None

    def why_not(self, model: ListedModel) -> WhyNot | None:
        """Return why a model cannot be had here, or None if it can."""
        offline = self._reach.offline_dir
        for name, download in self._missing(model):
            if offline is not None:
                if not self._held_offline(name, download, offline):
                    return WhyNot(f"the offline folder {offline} does not hold it", "make it with `roost bundle`")
            elif self._reach.hub_problem and only_hub(download):
                reason = f"no model hub answers: {self._reach.hub_problem.rstrip('.')}"
                return WhyNot(reason, "let this machine reach it, or set HF_ENDPOINT")
            elif all(isinstance(source, PathSource) and not source.path.exists() for source in download.sources):
                return WhyNot(f"{download.sources[0]} does not exist", "put the file there")
        return None

    def download_bytes(self, model: ListedModel) -> int | None:
        """Return how much must be fetched for a model; None where nobody knows yet how large a file is."""
        missing = [(self._known.get(name) or download.file).bytes for name, download in self._missing(model)]
        return None if None in missing else sum(size for size in missing if size is not None)

    def _missing(self, model: ListedModel) -> Iterator[tuple[str, ListedDownload]]:
        """Yield those of the model's files that do not lie here, with their names in the lock file."""
        for name, download in {model.reference: model, **model.parts, **model.extras}.items():
            if name not in self._known or self._known[name].sha256 not in self._reach.here:
                yield name, download

    def _held_offline(self, name: str, download: ListedDownload, folder: Path) -> bool:
        file = self._known.get(name)
        places = [folder, *(source.path for source in download.sources if isinstance(source, PathSource))]
        return file is not None and any(_holds(place, file) for place in places)


def only_hub(download: ListedDownload) -> bool:
    """Say whether nothing but a hub has a file."""
    there = [s for s in download.sources if not isinstance(s, PathSource) or s.path.exists()]
    return bool(there) and all(isinstance(source, HubSource) for source in there)


def _holds(place: Path, file: ModelFile) -> bool:
    try:
        find_in(place, file)
    except RoostError:
        return False
    return True
