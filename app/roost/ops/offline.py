"""The offline folder, read: a bundle made by `roost bundle`, each file with its SHA-256 in `bundle.json`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roost.ops.errors import RoostError
from roost.ops.files import sha256_file
from roost.ops.validation import in_words

CONTENTS = "bundle.json"
FORMAT = 1
# Folders of a bundle, beside nomad/ and models/.
WHEELS = "wheels"
IMAGES = "artifacts"
ENGINE_DEBS = "debs/engine"
HOST_DEBS = "debs/host"


class BundleFile(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int


class Contents(BaseModel):
    """What `bundle.json` says."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    roost_version: str
    arch: str
    runtime: str
    python: list[str]
    files: dict[str, BundleFile]  # by path relative to the bundle


class OfflineBundle:
    """A bundle's folder. Files are checked when they are asked for, once."""

    def __init__(self, folder: Path) -> None:
        """Read what the bundle says it holds.

        Raises:
            RoostError: the folder is not a bundle, or one of a newer version.
        """
        self.folder = folder
        self._checked: set[str] = set()
        try:
            self.contents = Contents.model_validate_json((folder / CONTENTS).read_text())
        except FileNotFoundError:
            raise RoostError(
                f"{folder} is not an offline folder of Roost ({CONTENTS} is missing).",
                fix="Make one with `roost bundle DIR` on a machine with a network; run it again if it was interrupted.",
            ) from None
        except ValidationError as error:
            raise RoostError(
                f"{folder / CONTENTS} is not valid: {in_words(error)}.", fix="Make the bundle again."
            ) from None
        if self.contents.format != FORMAT:
            raise RoostError(
                f"{folder} was made for another version of Roost.",
                fix="Make it again with this version's `roost bundle`.",
            )

    def has(self, name: str) -> bool:
        """Say whether the bundle lists a file."""
        return name in self.contents.files

    def names(self, prefix: str = "") -> list[str]:
        """Return the listed files below a prefix such as `wheels/`, sorted."""
        return sorted(name for name in self.contents.files if name.startswith(prefix))

    def path(self, name: str) -> Path:
        """Return a file's path once its content was found right.

        Raises:
            RoostError: the bundle does not list it, it is missing, or its content is wrong.
        """
        listed = self.contents.files.get(name)
        if listed is None:
            raise RoostError(
                f"The offline folder {self.folder} has no {name}.",
                fix="Make it again with this version's `roost bundle`.",
            )
        path = self.folder / name
        if name in self._checked:
            return path
        if not path.is_file():
            raise RoostError(
                f"{path} is listed in {CONTENTS} but missing.",
                fix="Copy the offline folder again, or run `roost bundle` again.",
            )
        if path.stat().st_size != listed.bytes or sha256_file(path) != listed.sha256:
            raise RoostError(
                f"{path} has the wrong checksum.", fix="Copy the offline folder again; it was damaged on its way."
            )
        self._checked.add(name)
        return path

    def directory(self, prefix: str) -> Path:
        """Return a folder of the bundle once every file listed in it was found right.

        Raises:
            RoostError: it holds nothing, or a file is missing or wrong.
        """
        names = self.names(f"{prefix}/")
        if not names:
            raise RoostError(
                f"The offline folder {self.folder} has no {prefix}.",
                fix="Make it again with this version's `roost bundle`.",
            )
        for name in names:
            self.path(name)
        return self.folder / prefix

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Check every file, or the given ones; raise RoostError with all that is missing or wrong."""
        wrong = []
        for name in names if names is not None else self.names():
            try:
                self.path(name)
            except RoostError as error:
                wrong.append(error.message)
        if wrong:
            raise RoostError(
                "\n".join(wrong), fix="Copy the offline folder again, or run `roost bundle` again to complete it."
            )
