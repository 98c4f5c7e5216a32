"""`models.lock.yaml`: which file of a model hub was meant when a model was fetched for the first time.

It lies beside the site file. An entry fixes commit, size and SHA-256; a later fetch takes just that file or fails.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.site import DEFAULT_PATH
from roost.ops.validation import in_words
from roost.ops.yaml_text import load_yaml

NAME = "models.lock.yaml"
HEADER = """---
# Written by `roost models pull`: the files that were meant. To take a newer one, remove its entry and pull again.
"""
SHA256_HEX = r"^[0-9a-f]{64}$"


class Locked(BaseModel):
    """One file of a hub: where it was found, at which commit, its size in bytes and SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    revision: str
    file: str
    commit: str = Field(min_length=1)
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=SHA256_HEX)

    def same_place(self, other: Locked) -> bool:
        """Say whether both are for the same file of the same revision."""
        return (self.repository, self.revision, self.file) == (other.repository, other.revision, other.file)


class LockFile(BaseModel):
    """The locked files, by the model's name in the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Annotated[dict[str, Locked], Field(default_factory=dict)]


def default_path() -> Path:
    """Return where this machine's lock file lies: beside its site file."""
    return Path(os.environ.get("ROOST_SITE", str(DEFAULT_PATH))).with_name(NAME)


def read_locks(path: Path) -> dict[str, Locked]:
    """Read the lock file; no file is no entry.

    Raises:
        RoostError: it cannot be read or is not valid.
    """
    fix = f"Correct {path}, or remove it and pull the models again."
    try:
        return LockFile.model_validate(load_yaml(path.read_text()) or {}).models
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RoostError(f"{path} cannot be read: {error.strerror}.", fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RoostError(f"{path} is not valid YAML: {error}", fix=fix) from None
    except ValidationError as error:
        raise RoostError(f"{path} is not valid: {in_words(error)}.", fix=fix) from None


def add_lock(path: Path, name: str, entry: Locked) -> Locked:
    """Write an entry beside the others; return the one that stands.

    Several processes may do so at the same time: for the same file of the hub the first one's stays.

    Raises:
        RoostError: the file is not valid, or may not be written.
    """
    try:
        with path.with_name(f".{NAME}.lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            models = read_locks(path)
            there = models.get(name)
            if there is not None and there.same_place(entry):
                return there
            models[name] = entry
            content = {"models": {key: models[key].model_dump() for key in sorted(models)}}
            write_atomic(path, HEADER + yaml.safe_dump(content, sort_keys=False))
            return entry
    except OSError as error:
        raise RoostError(
            f"{path} cannot be written: {error.strerror}.", fix="Run the command as root.", exit_code=4
        ) from None
