"""Where the operator's own models are written down: `models_custom` in host.yaml, and for every command beside it.

host.yaml is the source of truth, which the playbook reads; it may hold secrets and is root's. `models.custom.yaml` has
the same entries for everyone who may see the catalogue; the playbook writes it too.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml

from roost.models.catalogue import CUSTOM_NAME, parse_custom
from roost.models.schema import ListedEntry
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.host_file import load, merge

VARIABLE = "models_custom"
HEADER = "---\n# Models beside the catalogue's, written by the playbook and by `roost models add`: change host.yaml.\n"
TEMPLATE = re.compile(r"\{[{%#]")
Change = Callable[[dict[str, ListedEntry]], dict[str, ListedEntry]]


def change_custom(host_file: Path, change: Change, *, dry_run: bool = False) -> dict[str, ListedEntry]:
    """Apply `change` to the operator's models in host.yaml and in the file beside it; return what stands then.

    Several processes may do so at the same time. With `dry_run` nothing is written.

    Raises:
        RoostError: host.yaml is not valid or cannot be changed, or the user may not write it.
    """
    try:
        if dry_run:
            return change(_entries(host_file))
        with host_file.with_name(f".{host_file.name}.lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            before, beside = _entries(host_file), host_file.with_name(CUSTOM_NAME)
            after = change(before)
            listed = {name: listed_entry(entry) for name, entry in after.items()}
            _need_plain({name: listed[name] for name, entry in after.items() if before.get(name) != entry})
            text = host_file.read_text() if host_file.exists() else ""
            write_atomic(host_file, merge(text, {VARIABLE: listed or None}, host_file), mode=0o600)
            write_atomic(beside, custom_text({**_others(beside, before), **listed}))
            return after
    except PermissionError as error:
        raise RoostError(
            f"Only root may change the models: {error.filename} is closed to others.",
            fix="Run it with sudo.",
            exit_code=4,
        ) from None
    except OSError as error:
        raise RoostError(
            f"{host_file} cannot be changed: {error.strerror}.", fix="Put that right, then run it again."
        ) from None


def _need_plain(listed: Mapping[str, object]) -> None:
    """See that Ansible, which reads host.yaml as root, finds nothing in new entries that it would run.

    Raises:
        RoostError: it would.
    """
    for name, entry in listed.items():
        if any(TEMPLATE.search(text) for text in _texts(entry)):
            raise RoostError(
                f"The model {name} is not added: something of it would be read as a template by Ansible.",
                fix="Look for {{, {% or {# in its address and texts; what is meant so can be written into host.yaml.",
            )


def _texts(value: object) -> Iterator[str]:
    """Yield every text in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _others(beside: Path, mine: Mapping[str, object]) -> dict[str, object]:
    """Return the entries that the playbook wrote from elsewhere: the inventory, and slots that name a file."""
    content = yaml.safe_load(beside.read_text()) if beside.exists() else None
    models = content.get("models") if isinstance(content, dict) else None
    return {name: entry for name, entry in (models or {}).items() if name not in mine}


def custom_text(listed: Mapping[str, object]) -> str:
    """Return the text of models.custom.yaml, as the playbook's template writes it: so nothing changes afterwards."""
    return HEADER + yaml.safe_dump({"models": dict(listed)}, sort_keys=False, allow_unicode=True)


def listed_entry(entry: ListedEntry) -> dict[str, object]:
    """Return an entry as it is written in YAML: what is not said is left out."""
    return entry.model_dump(mode="json", exclude_defaults=True)


def _entries(host_file: Path) -> dict[str, ListedEntry]:
    values = load(host_file.read_text(), host_file) if host_file.exists() else {}
    found = values.get(VARIABLE) or {}
    if not isinstance(found, dict):
        raise RoostError(f"models_custom in {host_file} is not a mapping.", fix="Write it as NAME: entry.")
    return parse_custom(found)
