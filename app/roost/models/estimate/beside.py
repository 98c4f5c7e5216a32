"""What a server opens beside its model: the projector, where the model has one, and the slot's adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from roost.models.catalogue import Catalogue
from roost.models.footprint import HOST, Estimate, Estimator, LayerSplit, ServerSettings


class WithFiles:
    """An estimator that also counts what a server opens beside the model.

    The engine reads these files whole. They are counted on its first graphics processor, where it has one, and in the
    machine's memory: the engine lays a projector on the first, and adapters beside the layers that they change.
    """

    def __init__(self, estimator: Estimator, catalogue: Catalogue, models_dir: Path | None = None) -> None:
        """Add to what `estimator` says; adapters that are files lie below `models_dir`."""
        self.estimator, self.catalogue, self.models_dir = estimator, catalogue, models_dir
        self._bytes: dict[tuple[str, tuple[str, ...]], int] = {}

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        return self.estimator.layers(model, quantisation)

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device.

        Raises:
            RoostError: nothing is known of this model's shape.
        """
        found = self.estimator.estimate(model, quantisation, settings, split)
        key = (model, settings.adapters)
        if key not in self._bytes:
            self._bytes[key] = beside_bytes(self.catalogue, model, settings.adapters, self.models_dir)
        size = self._bytes[key]
        if not size:
            return found
        names = {HOST, f"GPU{split.gpus[0]}" if split.total else HOST}
        devices = tuple(replace(d, other=d.other + size) if d.device in names else d for d in found.devices)
        return Estimate(devices, found.origin)


def beside_bytes(catalogue: Catalogue, model: str, adapters: Sequence[str], models_dir: Path | None) -> int:
    """Return the bytes of the files that a server opens beside its model, as far as they are known.

    Of adapters that are named by a file below `models_dir` the file is looked at.
    """
    entry = catalogue.entries[model]
    if entry.projector is None and not adapters:
        return 0
    known, total = catalogue.known_files(), 0
    listed = {f"{model}:projector": entry.projector} if entry.projector else {}
    listed |= {f"{model}:adapter:{name}": entry.adapters[name] for name in adapters if name in entry.adapters}
    for name, download in listed.items():
        total += known[name].bytes if name in known else download.file.bytes or 0
    for name in adapters:
        path = models_dir / name if models_dir is not None and name not in entry.adapters else None
        total += path.stat().st_size if path is not None and path.is_file() else 0
    return total
