"""The catalogue of models: `group_vars/models.yaml` read strictly, with errors that name the file and the key.

A file that a hub serves may be listed without size and hash; `models.lock.yaml` then says which one is meant. Models
that the operator added (`models_custom`) are merged over it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, Field, ValidationError

from roost.models.lock_file import Locked, default_path, read_locks
from roost.models.schema import (
    MODEL_NAME,
    Download,
    ListedEntry,
    ListedModel,
    Model,
    ModelFile,
    find_lock,
    known,
    known_model,
)
from roost.models.source_types import KINDS, Strict
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.validation import problem
from roost.ops.yaml_text import load_yaml

CUSTOM_NAME = "models.custom.yaml"
EXAMPLE = "group_vars/models.yaml in the repository is an example."


class Listing(BaseModel):
    """What the catalogue file holds."""

    model_config = Strict

    models: dict[Annotated[str, Field(pattern=MODEL_NAME)], ListedEntry]
    left_out: dict[str, str] = Field(default_factory=dict)  # models that were looked for, and what is missing of them


class Catalogue(BaseModel):
    """All models by name, those of `custom` added by the operator; `locks` say which files of a hub are meant."""

    model_config = Strict

    entries: dict[str, ListedEntry]
    locks: dict[str, Locked] = Field(default_factory=dict)
    custom: frozenset[str] = frozenset()
    left_out: dict[str, str] = Field(default_factory=dict)

    def get(self, name: str, quantisation: str = "") -> Model:
        """Return a model in one quantisation, without one the preferred; `name` may be `NAME:QUANT`.

        Raises:
            RoostError: the catalogue has no such model or quantisation; or its file is not locked yet.
        """
        listed = self.listed(name, quantisation)
        found = self.known(listed)
        if found is None:
            raise _not_locked(listed.reference, listed.reference)
        return found

    def listed(self, name: str, quantisation: str = "") -> ListedModel:
        """Return a model as the catalogue lists it, whether its file is known or not.

        Raises:
            RoostError: the catalogue has no such model or quantisation; the fix names those it has.
        """
        elsewhere = name.replace(":", "-", 1)  # qwen3:8b, as Ollama writes it
        name, _, written = (elsewhere, "", "") if elsewhere in self.entries else name.partition(":")
        entry = self.entries.get(name)
        if entry is None:
            raise self._no_model(f"{name}:{written}" if written else name)
        wanted = quantisation or written
        if not wanted:
            return entry.flat(name, next(iter(entry.quantisations)))
        by_upper = {key.upper(): key for key in entry.quantisations}
        if wanted.upper() in by_upper:
            return entry.flat(name, by_upper[wanted.upper()])
        raise RoostError(
            f"The catalogue has {name} not in the quantisation {wanted!r}.",
            fix=f"Use one of: {', '.join(f'{name}:{key}' for key in entry.quantisations)}.",
            exit_code=NOT_FOUND,
        )

    def known(self, model: ListedModel) -> Model | None:
        """Return a listed model with its file, or None while nobody knows which file is meant."""
        return known_model(model, self.locks)

    def all(self) -> Iterator[ListedModel]:
        """Return every model in every quantisation, in the order in which they are listed."""
        for name, entry in self.entries.items():
            for quantisation in entry.quantisations:
                yield entry.flat(name, quantisation)

    def known_files(self) -> dict[str, ModelFile]:
        """Return every file of every model that is known by size and hash, by its name in the lock file.

        The names are `NAME:QUANT`, `NAME:QUANT:2` for a further part, `NAME:projector`, `NAME:adapter:ADAPTER`.
        """
        found: dict[str, ModelFile] = {}
        for model in self.all():
            if (known_one := self.known(model)) is not None:
                found |= dict(zip([model.reference, *model.parts], known_one.files, strict=True))
            found |= {name: item.file for name, item in self._extras(model).items() if item is not None}
        return found

    def needed_files(self, reference: str) -> list[ModelFile]:
        """Return the files that a server of a model opens: its own, projector and adapters.

        Raises:
            RoostError: the catalogue has no such model, or a file is not locked yet.
        """
        model = self.get(reference)
        extras = self._extras(model)
        missing = [name for name, item in extras.items() if item is None]
        if missing:
            raise _not_locked(missing[0], reference)
        return [*model.files, *(item.file for item in extras.values() if item is not None)]

    def unlocked(self, reference: str) -> list[str]:
        """Return which files of a model must be locked before they are known, by their names in the lock file.

        Raises:
            RoostError: the catalogue has no such model or quantisation.
        """
        model = self.listed(reference)
        items = {model.reference: model, **model.parts, **model.extras}
        return [name for name, item in items.items() if known(item, find_lock(self.locks, name, item)) is None]

    def _extras(self, model: ListedModel) -> dict[str, Download | None]:
        return {name: known(item, find_lock(self.locks, name, item)) for name, item in model.extras.items()}

    def _no_model(self, asked: str) -> RoostError:
        names = sorted(self.entries)
        word = asked.lower().replace(":", "-")
        near = difflib.get_close_matches(word, names, 3, 0.6) or [name for name in names if word in name][:3]
        fix = f"Did you mean {' or '.join(near)}? " if near else ""
        return RoostError(
            f"The catalogue has no model {asked!r}.",
            fix=f"{fix}Use one of: {', '.join(names) or 'none'}; "
            "or add it with `roost models add FILE|URL|hf:REPOSITORY[:QUANT]`.",
            exit_code=NOT_FOUND,
        )


def _not_locked(name: str, reference: str) -> RoostError:
    return RoostError(f"Size and hash of {name} are not known yet.", fix=f"Run `sudo roost models pull {reference}`.")


def custom_path() -> Path:
    """Return where the models that the operator added are written down: beside the site file."""
    return default_path().with_name(CUSTOM_NAME)


def load_catalogue(path: Path, lock: Path | None = None, custom: Mapping[str, object] | None = None) -> Catalogue:
    """Read and check a catalogue file; sizes and hashes that it leaves out come from the lock file.

    `custom` is the variable `models_custom`; None takes what the playbook wrote down of it on this machine.

    Raises:
        RoostError: a file is missing, is not YAML, or breaks the schema; names the file and every wrong key.
    """
    listing = _checked(_read(path), f"The catalogue {path}", f"Correct {path}; {EXAMPLE}")
    added: dict[str, ListedEntry] = {}
    if custom is not None:
        added = parse_custom(custom)
    elif custom_path().exists():
        where = custom_path()
        added = _checked(_read(where), str(where), "Correct models_custom and run ./bootstrap.sh again.").models
    merged = {**listing.models, **added}
    unknown = any(not download.file.is_known for entry in merged.values() for download in entry.downloads)
    locks = read_locks(lock or default_path()) if unknown else {}
    return Catalogue(entries=merged, locks=locks, custom=frozenset(added), left_out=listing.left_out)


def parse_custom(custom: Mapping[str, object]) -> dict[str, ListedEntry]:
    """Check the variable `models_custom`: the same schema as the catalogue's `models`.

    Raises:
        RoostError: it breaks the schema; names every wrong key.
    """
    return _checked({"models": dict(custom)}, "The variable models_custom", f"Correct models_custom; {EXAMPLE}").models


def _read(path: Path) -> object:
    fix = f"Correct {path}; {EXAMPLE}"
    try:
        return load_yaml(path.read_text())
    except OSError as error:
        raise RoostError(f"The catalogue {path} cannot be read: {error.strerror}.", fix=fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RoostError(f"The catalogue {path} is not valid YAML: {error}", fix=fix) from None


def _checked(content: object, what: str, fix: str) -> Listing:
    try:
        return Listing.model_validate(content)
    except ValidationError as error:
        raise RoostError(f"{what} is not valid:\n{_explain(error)}", fix=fix) from None


def _explain(error: ValidationError) -> str:
    """Return one line a mistake: the key's path and what is wrong with it."""
    lines = []
    for item in error.errors():
        # pydantic puts the kind of a source after its number; readers of the file see no such level
        steps = pairwise(("", *item["loc"]))
        parts = [str(p) for before, p in steps if p != "[key]" and not (isinstance(before, int) and p in KINDS)]
        key = ".".join(parts) or "(the whole file)"
        lines.append(f"  {key}: {problem(item)}")
    return "\n".join(lines)
