"""The operator's overrides, /etc/roost/host.yaml: `NAME=VALUE` pairs of `bootstrap.sh --set` worked into its text.

Comments and the order of the file stay. Runs as `python -m roost.ops.host_file` for bootstrap.sh.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.variable_names import renamed
from roost.ops.variable_values import Spec, load_specs, sentence, spec_of, wanted
from roost.ops.yaml_text import load_yaml

HEADER = """---
# This machine's own choices, kept by ./bootstrap.sh --set NAME=VALUE; defaults: group_vars/all.yaml of the release.
"""
# bootstrap.sh itself stands on these.
FIXED = (
    "roost_bin_dir",
    "roost_config_dir",
    "roost_install_dir",
    "roost_log_dir",
    "roost_manifest",
    "roost_run_dir",
    "roost_state_dir",
)
END = "...\n"  # what YAML puts after a bare scalar
TOP_LEVEL = re.compile(r"^(?P<name>[A-Za-z_]\w*)\s*:")


def _value(text: str, default: object) -> object:
    """Read a value as YAML, but as it stands where a text is wanted and YAML would make 20.1 of 20.10, say."""
    value = load_yaml(text)
    if isinstance(default, str) and value is not None and not isinstance(value, (str, list, dict)):
        return text.strip()
    return value


def parse_settings(
    words: Iterable[str], known: Mapping[str, object], specs: Mapping[str, Spec] | None = None
) -> dict[str, object]:
    """Read `NAME=VALUE` words; the value is YAML, and None (nothing after the =) means back to the default.

    `known` are the variables with their defaults: where the default is a text, the value is taken as a text. `specs`
    are the roles' own.

    Raises:
        RoostError: a name is unknown or fixed, or a value is not YAML or cannot be; exit code 2.
    """
    settings: dict[str, object] = {}
    names = sorted(known)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise RoostError(f"{word!r} is not NAME=VALUE.", fix="Write e.g. --set api_port=9000.", exit_code=2)
        if said := renamed(name):
            raise RoostError(said, fix="Use the new name, or take it out.", exit_code=2)
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            fix = f"Did you mean {near[0]}? " if near else ""
            fix += "Every variable stands in group_vars/all.yaml."
            raise RoostError(f"There is no variable {name!r}.", fix=fix, exit_code=2)
        if name in FIXED:
            raise RoostError(
                f"{name} cannot be changed on a machine that ./bootstrap.sh sets up.",
                fix="The cache can be moved: ROOST_CACHE_DIR=DIR ./bootstrap.sh",
                exit_code=2,
            )
        try:
            settings[name] = _value(text, known[name])
        except yaml.YAMLError as error:
            raise RoostError(f"The value of {name} is not YAML: {text!r}.", fix="Quote it.", exit_code=2) from error
        if what := wanted(name, settings[name], spec_of(name, known[name], specs or {})):
            raise RoostError(
                sentence(name, what, text),
                fix=f"Its default is {_shown(known[name])}; --set {name}= goes back to that.",
                exit_code=2,
            )
    return settings


def _shown(default: object) -> str:
    return _flow(default).strip() if isinstance(default, (bool, list, dict)) else str(default) or "empty"


def load(text: str, where: Path) -> dict[str, object]:
    """Read a file of variables.

    Raises:
        RoostError: it is not a YAML mapping.
    """
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise RoostError(f"{where} is not valid YAML: {error}", fix="Correct the file.") from error
    if values is not None and not isinstance(values, dict):
        raise RoostError(f"{where} does not hold variables.", fix="Write it as NAME: VALUE lines.")
    return {str(key): value for key, value in (values or {}).items()}


def _blocks(text: str) -> list[tuple[str, str]]:
    """Cut a file into (name, text) of its top-level variables; what stands before and between has no name."""
    blocks: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        match = TOP_LEVEL.match(line)
        if match:
            blocks.append((match["name"], line))
        elif blocks and blocks[-1][0] and line[:1] in {" ", "-", "\t", "}", "]"} and not line.startswith("---"):
            blocks[-1] = (blocks[-1][0], blocks[-1][1] + line)
        else:
            blocks.append(("", line))
    return blocks


def _written(name: str, value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return f"{name}:\n" + "".join(f"  - {_flow(entry)}" for entry in value)  # so that a diff shows which one
    return f"{name}: {_flow(value)}"


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000, sort_keys=False)
    return text.removesuffix(END)


def merge(text: str, settings: Mapping[str, object], where: Path) -> str:
    """Return the text of the file with `settings` worked in; a value of None takes the variable out.

    Raises:
        RoostError: the file is not valid, or is written so that it cannot be changed line by line.
    """
    before = load(text, where)
    changes = {name: value for name, value in settings.items() if value is None or before.get(name) != value}
    changes = {name: value for name, value in changes.items() if value is not None or name in before}
    if not changes:
        return text
    left = dict(changes)
    lines = []
    for name, block in _blocks(text or HEADER):
        if name in changes:
            value = left.pop(name, None)
            lines.append("" if value is None else _written(name, value))
        else:
            lines.append(block if block.endswith("\n") else block + "\n")
    lines += [_written(name, value) for name, value in left.items()]
    merged = "".join(lines)
    after = {name: value for name, value in {**before, **changes}.items() if value is not None}
    if load(merged, where) != after:
        raise RoostError(f"{where} is written in a way that cannot be changed here.", fix="Set the variable in it.")
    return merged


def main(argv: Sequence[str] | None = None) -> int:
    """Write the merged file; return the exit code."""
    parser = argparse.ArgumentParser(prog="roost.ops.host_file")
    parser.add_argument("--defaults", type=Path, required=True)
    parser.add_argument("--roles", type=Path, required=True, help="the folder of roles, for their argument specs")
    parser.add_argument("--current", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True, help="a file with one NAME=VALUE a line")
    args = parser.parse_args(argv)
    try:
        known = load(args.defaults.read_text(), args.defaults)
        settings = parse_settings(args.settings.read_text().splitlines(), known, load_specs(args.roles))
        text = args.current.read_text() if args.current.exists() else ""
        write_atomic(args.out, merge(text, settings, args.current), mode=0o600)
    except RoostError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
