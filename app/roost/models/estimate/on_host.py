"""Figures of the host that serves: its oracle is asked once for each file, engine and setting, and the answer kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roost.models.estimate.best import BestEstimator
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.measured import MeasuredKey, MeasuredStore
from roost.models.estimate.oracle import EngineCommand, ask_oracle, estimate_oracle, with_overhead
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.ops.errors import RoostError


@dataclass(frozen=True)
class HostEngine:
    """The engine of a host: its build, the host's graphics processors in words, and how its programs are run."""

    build: str
    gpu: str = ""
    command: EngineCommand | None = None


class HostEstimator(BestEstimator):
    """The best estimate on a host; `ask` has the engine say more, `took` keeps what a server really took."""

    def __init__(self, headers: CatalogueHeaders, state_dir: Path, engine: HostEngine) -> None:
        store = MeasuredStore(state_dir)
        super().__init__(headers, store, self._key)
        self.catalogue_headers = headers
        self.kept = store
        self.engine = engine

    def _key(self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit) -> MeasuredKey | None:
        catalogue = self.catalogue_headers.catalogue
        known = catalogue.known(catalogue.listed(model, quantisation))
        if known is None or not self.engine.build:
            return None
        return MeasuredKey(self.engine.build, known.file.sha256, settings, split, self.engine.gpu)

    def ask(
        self,
        model: str,
        quantisation: str,
        settings: ServerSettings,
        split: LayerSplit,
        warn: Callable[[str], None] = lambda _line: None,
    ) -> Estimate:
        """Return the best estimate; where nothing better than the header is known, the oracle is asked first.

        An oracle that cannot be asked is a warning, and the header's figures are returned.

        Raises:
            RoostError: nothing is known of this model's shape, or the engine would refuse these settings.
        """
        found = self.estimate(model, quantisation, settings, split)
        path = self.catalogue_headers.file(model, quantisation)
        key = self._key(model, quantisation, settings, split)
        if found.origin != "header" or self.engine.command is None or path is None or key is None:
            return found
        try:
            rows = ask_oracle(self.engine.command, path, settings, split)
            better = estimate_oracle(rows, self.catalogue_headers(model, quantisation), found, settings, split)
            self.kept.keep(key, better)
        except (RoostError, OSError) as error:
            warn(f"The engine was not asked what {model} needs, so the header's figures are used: {error}")
            return found
        return better

    def took(
        self, model: str, quantisation: str, settings: ServerSettings, split: LayerSplit, devices: Sequence[DeviceBytes]
    ) -> bool:
        """Keep the buffers that a server took by its own log; say whether that was new.

        Weights in the machine's memory are never more than the file's: a log names those that the engine repacked for
        the processor, and the whole mapped file beside them.

        Raises:
            OSError: the figures cannot be written.
        """
        key = self._key(model, quantisation, settings, split)
        if key is None:
            return False
        by_header = self.by_header.estimate(model, quantisation, settings, split)
        most = by_header.on(HOST).weights
        taken = [replace(d, weights=min(d.weights, most)) if d.device == HOST else d for d in devices]
        return self.kept.keep(key, with_overhead(taken, by_header))
