"""What a server opens beside its model: the projector, where the model has one."""

from __future__ import annotations

from dataclasses import replace

from roost.models.catalogue import Catalogue
from roost.models.footprint import HOST, Estimate, Estimator, LayerSplit, ServerSettings


class WithFiles:
    """An estimator that also counts what a server opens beside the model: the projector, where it has one.

    The engine reads the file whole, and puts it on its first graphics processor where it has one.
    """

    def __init__(self, estimator: Estimator, catalogue: Catalogue) -> None:
        """Add to what `estimator` says."""
        self.estimator, self.catalogue = estimator, catalogue

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        return self.estimator.layers(model, quantisation)

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device.

        Raises:
            RoostError: nothing is known of this model's shape.
        """
        found = self.estimator.estimate(model, quantisation, settings, split)
        size = self._size(model)
        if not size:
            return found
        names = {HOST, f"GPU{split.gpus[0]}" if split.total else HOST}
        devices = tuple(replace(d, other=d.other + size) if d.device in names else d for d in found.devices)
        return Estimate(devices, found.origin)

    def _size(self, model: str) -> int:
        projector = self.catalogue.entries[model].projector
        known = self.catalogue.known_files().get(f"{model}:projector") if projector else None
        return (known.bytes if known else projector.file.bytes or 0) if projector else 0
