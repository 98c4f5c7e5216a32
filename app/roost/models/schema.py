"""What the catalogue says of a model: the schema of `group_vars/models.yaml` and of `models_custom`.

An entry (`ListedEntry`) is a model in several quantisations; `ListedModel` is one of them, flat, and `Model` the same
with a file whose size and hash are known. A projector and adapters are downloads of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from roost.hosts.tiers import BORDERS
from roost.models.lock_file import SHA256_HEX, Locked
from roost.models.source_types import HubSource, Source, Strict

Role = Literal["main", "router", "specialist", "embedding", "rlm", "memory", "coding", "vision"]
ROLES: tuple[Role, ...] = get_args(Role)
TIERS = tuple(border.name for border in BORDERS)  # the smallest first
MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
QUANTISATION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$"
FOLDER_DIGITS = 16  # hex digits of the hash that name a model's folder
SPLIT = re.compile(r"-00001-of-(?P<count>\d{5})\.gguf$")
# What every shape says. The keys are those of a GGUF header without the architecture before them
# (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, gguf-py/gguf/constants.py); `tied_embeddings` is our own:
# whether the output layer is the token embedding, so that the file holds no `output.weight`.
SHAPE_KEYS = ("block_count", "embedding_length", "vocab_size", "tied_embeddings")

ShapeValue = bool | int | float | str | list[bool] | list[int]


class ListedFile(BaseModel):
    """A file as the catalogue lists it. Size in bytes and SHA-256 may be left to the lock file, one of them or both."""

    model_config = Strict

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    bytes: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern=SHA256_HEX)

    @property
    def is_known(self) -> bool:
        """Say whether both size and hash are there."""
        return self.bytes is not None and self.sha256 is not None


class ModelFile(ListedFile):
    """A file that is known: its name, size in bytes and SHA-256."""

    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=SHA256_HEX)
    folder: str = ""  # of a further part of a model: it lies beside the first, where the engine looks for it

    @property
    def relative_path(self) -> str:
        """Where the file lies below the models folder: `<16 hex digits>/<name>`."""
        return f"{self.folder or self.sha256[:FOLDER_DIGITS]}/{self.name}"


class ListedDownload(BaseModel):
    """A file and where it comes from."""

    model_config = Strict

    file: ListedFile
    sources: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_known(self) -> ListedDownload:
        if not self.file.is_known and not self.hub_sources:
            raise ValueError("file.bytes and file.sha256 may be left out only with a source of kind hub")
        return self

    @property
    def hub_sources(self) -> list[HubSource]:
        """Return the sources on a hub, in order."""
        return [source for source in self.sources if isinstance(source, HubSource)]

    def fits(self, entry: Locked) -> bool:
        """Say whether a lock's entry is for what the catalogue names today."""
        listed = (self.file.sha256 in (None, entry.sha256)) and (self.file.bytes in (None, entry.bytes))
        return listed and any(_is_for(entry, source) for source in self.sources)


class Download(ListedDownload):
    """A file of which size and hash are known, and where it comes from."""

    file: ModelFile


class Parameters(BaseModel):
    """How many weights there are, and how many take part in each token (all, but for a mixture of experts)."""

    model_config = Strict

    total: int = Field(gt=0)
    active: int = Field(gt=0)

    @model_validator(mode="after")
    def _active_is_a_part(self) -> Parameters:
        if self.active > self.total:
            raise ValueError("active cannot be more than total")
        return self


class Quirks(BaseModel):
    """What a model needs that its own chat template does not give it.

    `prefill` is how the answer of the assistant begins, e.g. an opened thinking block; `chat_template` names one of the
    engine's own templates.
    """

    model_config = Strict

    prefill: str = ""
    chat_template: str = ""


class Traits(BaseModel):
    """What all quantisations of a model share. `engine` is a build of llama.cpp that is known to be new enough, 0 where
    none is known."""

    model_config = Strict

    title: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    architecture: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")  # general.architecture of the GGUF header
    parameters: Parameters
    context_length: int = Field(gt=0)  # tokens it was trained for
    roles: dict[Role, Annotated[int, Field(ge=0, le=100)]] = Field(min_length=1)  # role: preference
    tier: str
    engine: int = Field(default=0, ge=0)
    shape: dict[str, ShapeValue] = Field(default_factory=dict)
    quirks: Quirks = Quirks()
    projector: ListedDownload | None = None
    adapters: dict[Annotated[str, Field(pattern=MODEL_NAME)], ListedDownload] = Field(default_factory=dict)
    facts: list[str] = Field(default_factory=list)  # where what is said here comes from
    missing: list[str] = Field(default_factory=list)  # what could not be found

    @field_validator("tier")
    @classmethod
    def _is_a_tier(cls, value: str) -> str:
        if value not in TIERS:
            raise ValueError(f"must be one of {', '.join(TIERS)}")
        return value

    @field_validator("shape")
    @classmethod
    def _has_the_main_keys(cls, value: dict[str, ShapeValue]) -> dict[str, ShapeValue]:
        missing = [key for key in SHAPE_KEYS if value and key not in value]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        return value


class ListedModel(Traits, ListedDownload):
    """One model in one quantisation."""

    name: str = Field(pattern=MODEL_NAME)
    quantisation: str = Field(pattern=QUANTISATION)

    @property
    def reference(self) -> str:
        """Return `NAME:QUANT`."""
        return f"{self.name}:{self.quantisation}"

    @property
    def parts(self) -> dict[str, ListedDownload]:
        """Return the further parts of a model that is split, by their names in the lock file: `NAME:QUANT:2` …

        The first part's name says how many there are (`…-00001-of-00003.gguf`, as llama.cpp's gguf-split names them);
        size and hash of the others come from the hub.
        """
        split = SPLIT.search(self.file.name)
        if split is None:
            return {}
        numbers = range(2, int(split["count"]) + 1)
        return {f"{self.reference}:{number}": self._part(number, split["count"]) for number in numbers}

    def _part(self, number: int, count: str) -> ListedDownload:
        name = f"-{number:05}-of-{count}.gguf"
        sources = [s.model_copy(update={"file": SPLIT.sub(name, s.file)}) for s in self.hub_sources]
        return ListedDownload(file=ListedFile(name=SPLIT.sub(name, self.file.name)), sources=list(sources))

    @property
    def extras(self) -> dict[str, ListedDownload]:
        """Return projector and adapters by the names that the lock file gives them: `NAME:projector` …"""
        projector = {f"{self.name}:projector": self.projector} if self.projector else {}
        return projector | {f"{self.name}:adapter:{key}": adapter for key, adapter in self.adapters.items()}


class Model(ListedModel, Download):
    """One model in one quantisation, its file known by size and hash, and its further parts if it is split."""

    file: ModelFile
    further: tuple[ModelFile, ...] = ()

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Return the files that hold the weights, the one that the engine is given first."""
        return (self.file, *self.further)

    @property
    def bytes(self) -> int:
        """Return the size of the weights."""
        return sum(file.bytes for file in self.files)


class ListedEntry(Traits):
    """One model as the catalogue lists it; the first of its quantisations is the preferred one."""

    quantisations: dict[Annotated[str, Field(pattern=QUANTISATION)], ListedDownload] = Field(min_length=1)

    @property
    def downloads(self) -> list[ListedDownload]:
        """Return every file that belongs to the model: all quantisations, projector, adapters."""
        projector = [self.projector] if self.projector else []
        return [*self.quantisations.values(), *projector, *self.adapters.values()]

    def flat(self, name: str, quantisation: str) -> ListedModel:
        """Return the model in one of its quantisations."""
        shared = {key: getattr(self, key) for key in Traits.model_fields}
        chosen = self.quantisations[quantisation]
        return ListedModel.model_construct(
            **shared, name=name, quantisation=quantisation, file=chosen.file, sources=chosen.sources
        )


def find_lock(locks: Mapping[str, Locked], name: str, download: ListedDownload) -> Locked | None:
    """Return the lock's entry that is for a download called `name`, `NAME:QUANT` say.

    Before a model had several quantisations its lock was called by its name alone.
    """
    entries = [locks[key] for key in (name, name.partition(":")[0]) if key in locks]
    return next((entry for entry in entries if download.fits(entry)), None)


def known(download: ListedDownload, entry: Locked | None) -> Download | None:
    """Return the file as it is known: by the catalogue itself, or by a lock's entry that is for it (`find_lock`)."""
    if download.file.is_known:
        return Download.model_validate(download.model_dump(include={"file", "sources"}))
    return None if entry is None else locked(download, entry)


def locked(download: ListedDownload, entry: Locked) -> Download:
    """Return the file that a lock's entry means; the hub is then asked for that very commit."""
    sources = [
        source.model_copy(update={"revision": entry.commit}) if _is_for(entry, source) else source
        for source in download.sources
    ]
    return Download(file=ModelFile(name=download.file.name, bytes=entry.bytes, sha256=entry.sha256), sources=sources)


def known_model(model: ListedModel, locks: Mapping[str, Locked]) -> Model | None:
    """Return the model with its files as they are known; None as long as one is not."""
    found = known(model, find_lock(locks, model.reference, model))
    parts = [known(part, find_lock(locks, name, part)) for name, part in model.parts.items()]
    further = tuple(beside(found, part).file for part in parts if part is not None and found is not None)
    if found is None or len(further) != len(parts):
        return None
    rest = {key: getattr(model, key) for key in ListedModel.model_fields if key not in {"file", "sources"}}
    return Model.model_construct(**rest, file=found.file, sources=found.sources, further=further)


def beside(first: Download, part: Download) -> Download:
    """Return a further part of a model with its place beside the first one."""
    folder = first.file.sha256[:FOLDER_DIGITS]
    return part.model_copy(update={"file": part.file.model_copy(update={"folder": folder})})


def _is_for(entry: Locked, source: Source) -> bool:
    named = (entry.repository, entry.revision, entry.file)
    return isinstance(source, HubSource) and (source.repository, source.revision, source.file) == named
