"""The playbook's variables for the command line: the same defaults, the same overrides, the same names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.nativetypes import NativeEnvironment

from roost.ops.errors import RoostError
from roost.ops.yaml_text import load_yaml

DEFAULTS = Path("group_vars/all.yaml")
DEPTH = 10  # a variable that names a variable that names ...


def load_variables(release_dir: Path, host_file: Path) -> dict[str, object]:
    """Return every variable: the release's defaults, overridden by the operator's file where there is one.

    `{{ name }}` references are resolved; what only a play can know (facts) stays as it is written.

    Raises:
        RoostError: a file is missing, may not be read, or is not a YAML mapping.
    """
    values = {**_read(release_dir / DEFAULTS), **(_read(host_file) if _exists(host_file) else {})}
    known = {"playbook_dir": str(release_dir), "ansible_playbook_python": sys.executable}
    return resolve({**known, **values})


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # reading it gives the message


def _read(path: Path) -> dict[str, object]:
    try:
        content = load_yaml(path.read_text())
    except FileNotFoundError:
        raise RoostError(f"{path} is missing.", fix="Run ./bootstrap.sh again.") from None
    except PermissionError:
        raise RoostError(f"{path} cannot be read.", fix="Run the command as root.", exit_code=4) from None
    except yaml.YAMLError as error:
        raise RoostError(f"{path} is not valid YAML: {error}", fix="Correct the file.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RoostError(f"{path} does not hold variables.", fix="Write it as NAME: VALUE lines.")
    return {str(key): value for key, value in content.items()}


def is_on(value: object) -> bool:
    """Say whether a variable is on; one of `--set` is text, and counts as Ansible's filter `bool` has it."""
    return str(value).strip().lower() in {"true", "yes", "on", "1"}


def resolve(values: Mapping[str, object]) -> dict[str, object]:
    """Replace references among the variables, in lists and mappings too; one that cannot be resolved stays."""
    environment = NativeEnvironment(undefined=StrictUndefined, autoescape=False)  # values for programs, not pages
    done = dict(values)
    for _ in range(DEPTH):
        before = dict(done)
        for name, value in before.items():
            done[name] = _render(environment, value, before)
        if done == before:
            break
    return done


def _render(environment: NativeEnvironment, value: object, values: Mapping[str, object]) -> object:
    if isinstance(value, list):
        return [_render(environment, item, values) for item in value]
    if isinstance(value, dict):
        return {key: _render(environment, item, values) for key, item in value.items()}
    if not isinstance(value, str) or "{{" not in value:
        return value
    try:
        rendered: object = environment.from_string(value).render(values)
    except TemplateError:
        return value
    return rendered
