"""README of each role, from what the role itself says: `./tests/run readmes` writes them, `tests/run check` compares.

Sources: meta/argument_specs.yml (what it is, its variables), group_vars/all.yaml (defaults), the names of its tasks,
playbook.yaml (where it is used).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
HEAD = "<!-- Written by `./tests/run readmes` from meta/argument_specs.yml and group_vars/all.yaml; change those. -->"
ENTRIES = {
    "main": "what the playbook runs",
    "validate": "looks at the variables before anything is changed",
    "install": "brings it",
    "uninstall": "takes it away",
}
LONGEST_DEFAULT = 60


@dataclass(frozen=True)
class Role:
    """A role as its files describe it: options by entry point, tasks by file, plays that use it."""

    name: str
    specs: dict[str, Any]
    tasks: dict[str, list[str]]
    plays: list[str]


def task_names(tasks: list[dict[str, Any]], role: str) -> list[str]:
    """Return the names of tasks and of those in their blocks, without the role's own name in front of each."""
    names: list[str] = []
    for task in tasks:
        if name := task.get("name"):
            names.append(str(name).removeprefix(f"{role.capitalize()} | "))
        for part in ("block", "rescue", "always"):
            names += task_names(task.get(part) or [], role)
    return names


def roles_in(tasks: list[dict[str, Any]]) -> set[str]:
    """Return the roles that tasks, and those of their blocks, import or include."""
    found: set[str] = set()
    for task in tasks:
        for word in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
            found |= {task[word]["name"]} if word in task else set()
        for part in ("block", "rescue", "always"):
            found |= roles_in(task.get(part) or [])
    return found


def plays_using(role: str, playbook: list[dict[str, Any]]) -> list[str]:
    """Return the names of the plays that have the role, in their list or in their tasks."""
    return [
        str(play["name"])
        for play in playbook
        if any((entry["role"] if isinstance(entry, dict) else entry) == role for entry in play.get("roles") or [])
        or role in roles_in(play.get("tasks") or [])
    ]


def read_role(folder: Path, playbook: list[dict[str, Any]]) -> Role:
    """Read a role's folder.

    Raises:
        FileNotFoundError: it has no meta/argument_specs.yml.
    """
    specs = yaml.safe_load((folder / "meta/argument_specs.yml").read_text())["argument_specs"]
    tasks = {
        path.stem: task_names(yaml.safe_load(path.read_text()) or [], folder.name)
        for path in sorted((folder / "tasks").glob("*.yml"))
    }
    return Role(folder.name, specs, tasks, plays_using(folder.name, playbook))


def default_of(value: object) -> str:
    """Return a default as a cell of a table: JSON where it is no text, shortened where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not text:
        return "empty"
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see `group_vars/all.yaml`"


def described(option: dict[str, Any]) -> str:
    """Return what an option is for, with what it may be."""
    text = option["description"]
    words = " ".join(text) if isinstance(text, list) else str(text)
    if choices := option.get("choices"):
        words += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    return words.replace("|", "\\|")


def render(role: Role, defaults: dict[str, Any]) -> str:
    """Return the README of a role."""
    main = role.specs["main"]
    lines = [HEAD, "", f"# {role.name}", "", f"{main['short_description']}."]
    for paragraph in main.get("description") or []:
        lines += ["", str(paragraph)]
    used = ", ".join(f"*{play}*" for play in role.plays)
    lines += ["", f"In `playbook.yaml`: {used}." if used else "Not in `playbook.yaml`; see docs/operations.md."]
    lines += ["", "## Tasks", ""]
    for entry in sorted(role.tasks, key=lambda name: (list(ENTRIES).index(name) if name in ENTRIES else 9, name)):
        what = f" ({ENTRIES[entry]})" if entry in ENTRIES else ""
        lines.append(f"- `{entry}`{what}: " + "; ".join(role.tasks[entry]) + ".")
    options: dict[str, Any] = {}
    for spec in role.specs.values():
        options |= spec.get("options") or {}
    lines += ["", "## Variables", "", "| name | type | default | what |", "|---|---|---|---|"]
    for name in sorted(options):
        option = options[name]
        kind = option["type"] + (f" of {option['elements']}" if option.get("elements") else "")
        lines.append(f"| `{name}` | {kind} | {default_of(defaults.get(name, ''))} | {described(option)} |")
    return "\n".join(lines) + "\n"


def wanted(root: Path = ROOT) -> dict[Path, str]:
    """Return the text of every README by its path."""
    defaults = yaml.safe_load((root / "group_vars/all.yaml").read_text())
    playbook = yaml.safe_load((root / "playbook.yaml").read_text())
    folders = sorted(path for path in (root / "ansible/roles").iterdir() if path.is_dir())
    return {folder / "README.md": render(read_role(folder, playbook), defaults) for folder in folders}


def stale(root: Path = ROOT) -> list[Path]:
    """Return the READMEs that are missing or are not what the roles say."""
    return [path for path, text in wanted(root).items() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Write what is stale; with --check only name it, and end with 1 if there is any."""
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            sys.stdout.write(f"{path.relative_to(ROOT)} does not follow from its role: run ./tests/run readmes.\n")
        return 1 if found else 0
    texts = wanted()
    for path in found:
        path.write_text(texts[path])
        sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
