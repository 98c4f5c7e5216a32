"""The best figure that is known: measured on this host, else said by its oracle, else computed from the header."""

from __future__ import annotations

from roost.models.estimate.header import HeaderEstimator, Headers
from roost.models.estimate.measured import Keys, MeasuredStore
from roost.models.footprint import Estimate, LayerSplit, ServerSettings


class BestEstimator:
    """Implements `footprint.Estimator`. `keys` gives None for a model whose file or engine is not known yet."""

    def __init__(self, headers: Headers, store: MeasuredStore | None = None, keys: Keys | None = None) -> None:
        self.by_header = HeaderEstimator(headers)
        self.store = store
        self.keys = keys

    def layers(self, model: str, quantisation: str) -> int:
        """Return how many layers can go to a graphics processor, the output layer included."""
        return self.by_header.layers(model, quantisation)

    def estimate(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> Estimate:
        """Return the bytes on each device, and from where they are known.

        Raises:
            RoostError: nothing is known of this model's shape, or the engine would refuse these settings.
        """
        if self.store is not None and self.keys is not None:
            key = self.keys(model, quantisation, settings, split)
            found = self.store.get(key) if key is not None else None
            if found is not None:
                return found
        return self.by_header.estimate(model, quantisation, settings, split)
