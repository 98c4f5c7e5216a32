"""What values variables may have: the kinds and choices of the roles' argument specs, and the range of each number.

Pure but for `load_specs`. Used for `bootstrap.sh --set` before the playbook, and by the playbook for inventories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from roost.ops.errors import RoostError
from roost.ops.yaml_text import load_yaml

SPECS = "*/meta/argument_specs.yml"
HIGHEST_PORT = 65535
NO_LIMIT = float("inf")
# The end of a name says the unit, so it says the range too; whole names come first. Any other: 0 or more.
RANGES: tuple[tuple[str, float, float], ...] = (
    ("nomad_raft_multiplier", 1, 10),  # Nomad takes no more
    ("update_at_once", 1, NO_LIMIT),
    ("snapshots_keep", 1, NO_LIMIT),
    ("docker_log_files", 1, NO_LIMIT),
    ("docker_log_max_mib", 1, NO_LIMIT),
    ("monitoring_scrape_s", 1, NO_LIMIT),
    ("verify_timeout_s", 1, NO_LIMIT),
    ("model_start_s", 1, NO_LIMIT),
    ("fleet_join_ttl_s", 1, NO_LIMIT),
    ("_port", 1, HIGHEST_PORT),
    ("_port_min", 1, HIGHEST_PORT),
    ("_port_max", 1, HIGHEST_PORT),
    ("_uid", 1, 65533),
    ("_ratio", 0, 1),
)
WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "a list",
    "dict": "a mapping such as {name: value}",
    "path": "an absolute path",
}


@dataclass(frozen=True)
class Spec:
    """What an argument spec says of a variable: its type there, and which values there are (empty: any)."""

    kind: str
    choices: tuple[object, ...] = ()


# The playbook itself reads it, no role does.
OF_NO_ROLE = {"images_from": Spec("str", ("copies", "registry"))}


def load_specs(roles: Path) -> dict[str, Spec]:
    """Return what the argument specs below a folder of roles say, by variable.

    Raises:
        RoostError: a file of them cannot be read.
    """
    found = dict(OF_NO_ROLE)
    for path in sorted(roles.glob(SPECS)):
        try:
            document = load_yaml(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise RoostError(f"{path} cannot be read: {error}", fix="Is the release whole? Get it again.") from None
        entries = document.get("argument_specs", {}) if isinstance(document, dict) else {}
        for entry in entries.values():
            for name, option in (entry.get("options") or {}).items():
                found[str(name)] = Spec(str(option.get("type", "str")), tuple(option.get("choices") or ()))
    return found


def spec_of(name: str, default: object, specs: Mapping[str, Spec]) -> Spec:
    """Return the spec of a variable; one that no role names has the kind of its default."""
    if name in specs:
        return specs[name]
    for kind, word in ((bool, "bool"), (int, "int"), (float, "float"), (list, "list"), (dict, "dict")):
        if isinstance(default, kind):
            return Spec(word)
    return Spec("raw" if _is_template(default) else "str")


def wanted(name: str, value: object, spec: Spec) -> str:
    """Return what a variable may be where this value is none of that, else an empty string.

    None is the default, and a template is left to Ansible.
    """
    if value is None or _is_template(value):
        return ""
    if spec.choices:
        return "" if value in spec.choices else f"one of {', '.join(str(choice) for choice in spec.choices)}"
    if not _is_kind(value, spec.kind):
        return f"{WORDS.get(spec.kind, 'a text')}{_range_words(name, spec.kind)}"
    least, most = _range(name)
    if spec.kind in {"int", "float"} and isinstance(value, (int, float)) and not least <= value <= most:
        return f"{WORDS[spec.kind]}{_range_words(name, spec.kind)}"
    return ""


def problems(values: Mapping[str, object], defaults: Mapping[str, object], specs: Mapping[str, Spec]) -> list[str]:
    """Return a sentence for each variable whose value cannot be, sorted by name.

    `values` are of an inventory, where a number or a switch may be written as a text, as Ansible takes it.
    """
    said = []
    for name in sorted(set(values) & set(defaults)):
        spec = spec_of(name, defaults[name], specs)
        if what := wanted(name, _read(values[name], spec.kind), spec):
            said.append(sentence(name, what, values[name]))
    return said


def sentence(name: str, what: str, value: object) -> str:
    """Say that a variable is something else than it was set to.

    Of lists and mappings, or texts that may be some, only the kind is shown: they may hold keys.
    """
    text = str(value).strip()
    simple = not isinstance(value, (list, dict)) and not text.startswith(("[", "{"))
    return f"{name} is {what}, not {repr(text) if simple else 'that list or mapping'}."


def _is_template(value: object) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _is_kind(value: object, kind: str) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "list":
            return isinstance(value, list)
        case "dict":
            return isinstance(value, dict)
        case "path":
            return isinstance(value, str) and value.startswith(("/", "~"))
        case "str":
            return not isinstance(value, (list, dict))
        case _:
            return True


def _read(value: object, kind: str) -> object:
    """Return a text as the number or the switch that Ansible makes of it; anything else as it is."""
    if not isinstance(value, str) or kind not in {"int", "float", "bool"} or _is_template(value):
        return value
    try:
        return load_yaml(value)
    except yaml.YAMLError:
        return value


def _range(name: str) -> tuple[float, float]:
    return next(((least, most) for end, least, most in RANGES if name.endswith(end)), (0, NO_LIMIT))


def _range_words(name: str, kind: str) -> str:
    if kind not in {"int", "float"}:
        return ""
    least, most = _range(name)
    return f" of {least:g} or more" if most == NO_LIMIT else f" from {least:g} to {most:.0f}"
