"""Headers of the catalogue's models: of the file where it is on this host, else made from the catalogue's shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from roost.models.catalogue import Catalogue
from roost.models.estimate.shape import header_of_shape
from roost.models.gguf_header import Header
from roost.models.gguf_read import header_of_file
from roost.models.store import model_path
from roost.ops.errors import RoostError


class CatalogueHeaders:
    """Finds headers by a model's name and quantisation; each is read once. Without `models_dir` none is of a file.

    `given` are headers by `NAME:QUANT` that somebody else has read.
    """

    def __init__(
        self, catalogue: Catalogue, models_dir: Path | None = None, given: Mapping[str, Header] | None = None
    ) -> None:
        self.catalogue = catalogue
        self.models_dir = models_dir
        self.given = given or {}
        self.found: dict[tuple[str, str], Header] = {}

    def __call__(self, model: str, quantisation: str) -> Header:
        """Return the header of a model.

        Raises:
            RoostError: the catalogue has no such model, or there is neither a file nor a shape.
        """
        key = (model, quantisation)
        if key not in self.found:
            self.found[key] = self._find(model, quantisation)
        return self.found[key]

    def file(self, model: str, quantisation: str) -> Path | None:
        """Return where the model's file is on this host, None if it is not."""
        known = self.catalogue.known(self.catalogue.listed(model, quantisation))
        if known is None or self.models_dir is None:
            return None
        path = model_path(self.models_dir, known.file)
        return path if path.is_file() else None

    def _find(self, model: str, quantisation: str) -> Header:
        path = self.file(model, quantisation)
        if path is not None:
            return header_of_file(path)
        listed = self.catalogue.listed(model, quantisation)
        if listed.reference in self.given:
            return self.given[listed.reference]
        if not listed.shape:
            raise RoostError(
                f"The catalogue says nothing of the shape of {listed.reference}, so its memory is not known.",
                fix=f"Fetch its file (`sudo roost models pull {listed.reference}`), or add the shape to the catalogue.",
            )
        return header_of_shape(listed.architecture, listed.shape, listed.quantisation)
