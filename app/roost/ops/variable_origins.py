"""Where the value of a variable is from: the layers that Ansible puts over each other, in its order, later wins.

The order is that of `precedence` in ansible.cfg, then hosts, then `-e`; docs/operations.md has it as a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from roost.ops.errors import RoostError
from roost.ops.yaml_text import load_yaml

RANGE = re.compile(r"\[(\d+):(\d+)\]")
BAD_INPUT = 2
Json = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """Values from one place. `origin` is what a user is told: a file, and of an inventory the group or machine."""

    origin: str
    values: Mapping[str, object]


@dataclass(frozen=True)
class Found:
    """A variable: its value as it is written, where that is from, and what it hides, nearest first."""

    name: str
    value: object
    origin: str
    hidden: tuple[tuple[str, object], ...] = ()


def effective(layers: Sequence[Layer]) -> dict[str, Found]:
    """Put layers over each other, the last on top. Pure."""
    found: dict[str, Found] = {}
    for layer in layers:
        for name, value in layer.values.items():
            below = found.get(name)
            hidden = ((below.origin, below.value), *below.hidden) if below else ()
            found[name] = Found(name, value, layer.origin, hidden)
    return found


def read(path: Path) -> Json:
    """Return the variables of a file; none where there is no file.

    Raises:
        RoostError: it cannot be read, or holds no variables.
    """
    try:
        content = load_yaml(path.read_text())
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise RoostError(f"{path} can only be read by root.", fix="Run the command with sudo.", exit_code=4) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RoostError(f"{path} is not valid YAML: {error}", fix="Correct the file.") from None
    if content is not None and not isinstance(content, dict):
        raise RoostError(f"{path} does not hold variables.", fix="Write it as NAME: VALUE lines.")
    return {str(name): value for name, value in (content or {}).items()}


def layers_of(defaults: Path, inventory: Path | None, host: str, kept: Path) -> list[Layer]:
    """Return the layers for a machine: the release's defaults, the inventory, and what `--set` keeps.

    `host` may be empty for a machine alone, which has no inventory.

    Raises:
        RoostError: a file cannot be read; the inventory has no such machine (exit code 2).
    """
    layers = [Layer(str(defaults), read(defaults))]
    if inventory is not None:
        groups = list(groups_of(read(inventory), host))
        if host and not groups:
            raise RoostError(f"{host} is not in {inventory}.", fix="See `roost fleet status`.", exit_code=BAD_INPUT)
        layers += [Layer(f"{inventory}, group {group}", values) for group, values, _ in groups]
        layers += _beside(inventory.parent / "group_vars", [group for group, _, _ in groups])
        layers += [Layer(f"{inventory}, machine {host}", own) for _, _, own in groups if own]
        layers += _beside(inventory.parent / "host_vars", [host])
    layers.append(Layer(str(kept), read(kept)))
    return [layer for layer in layers if layer.values]


def _beside(folder: Path, names: Sequence[str]) -> list[Layer]:
    """Return what lies in files, or folders of files, by these names: NAME, NAME.yaml, NAME.yml, NAME.json."""
    found: list[Layer] = []
    for name in names:
        paths = [folder / f"{name}{end}" for end in ("", ".yml", ".yaml", ".json")]
        for path in paths:
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            found += [Layer(str(file), read(file)) for file in files if file.is_file()]
    return found


def groups_of(document: Mapping[str, Any], host: str) -> Iterator[tuple[str, Json, Json]]:
    """Yield the groups that hold a machine, from the outside in: name, the group's variables, the machine's own there.

    Groups that are as deep come by name, as with Ansible.
    """
    reached: dict[str, tuple[int, Json, Json]] = {}

    def walk(name: str, group: Mapping[str, Any], depth: int) -> bool:
        hosts = group.get("hosts") or {}
        entry = next((hosts[pattern] for pattern in hosts if host in expand(str(pattern))), None)
        inside = any(host in expand(str(pattern)) for pattern in hosts)
        for child, below in sorted((group.get("children") or {}).items()):
            inside = walk(str(child), below or {}, depth + 1) or inside
        if inside:
            reached[name] = (depth, dict(group.get("vars") or {}), dict(entry or {}))
        return inside

    for top, group in document.items():
        if isinstance(group, Mapping):
            walk(str(top), group, 0 if top == "all" else 1)
    for name, (_, values, own) in sorted(reached.items(), key=lambda item: (item[1][0], item[0])):
        yield name, values, own


def expand(pattern: str) -> list[str]:
    """Return the machines of a pattern such as `worker[01:12]`."""
    parts = RANGE.split(pattern)
    texts = parts[::3]
    ranges = [
        [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        for first, last in zip(parts[1::3], parts[2::3], strict=True)
    ]
    return ["".join(_interleave(texts, chosen)) for chosen in product(*ranges)]


def _interleave(texts: Sequence[str], chosen: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield text
        if number < len(chosen):
            yield chosen[number]
