"""Names of variables: which were renamed, and which there are not. Pure: names in, what to say of them out."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Renamed:
    """A name that variables had before. `new` is empty where nothing replaces it; `why` says what to do instead."""

    old: str
    new: str = ""
    why: str = ""


# Whoever renames or drops a variable of group_vars/all.yaml adds a line: an old name is never passed over silently.
RENAMED = (
    Renamed("api_names", "api_names_custom", "what Roost adds itself is api_names_auto"),
    Renamed("model_peers", "model_peers_custom", "what Roost adds itself is model_peers_auto"),
    Renamed("roost_venv_python", why="the program's Python is chosen by bootstrap.sh"),
)
BY_OLD_NAME = {entry.old: entry for entry in RENAMED}
# Ansible's own, and what a play may set for connections: no variable of ours begins like that.
FOREIGN = ("ansible_", "group_names", "groups", "hostvars", "inventory_", "omit", "play", "role_", "discovered_")
NEAR = 0.85  # how alike a name must be to one of ours to be taken for a slip (difflib's ratio)


@dataclass(frozen=True)
class Names:
    """What is wrong with names that somebody set: `errors` must be put right, `warnings` are slips, most likely."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def renamed(name: str) -> str:
    """Return what is to be said of an old name, with its fix; empty for any other name."""
    entry = BY_OLD_NAME.get(name)
    if entry is None:
        return ""
    because = f" ({entry.why})" if entry.why else ""
    if entry.new:
        return f"The variable {name} is now called {entry.new}{because}."
    return f"There is no variable {name} any more{because}."


def examine(names: Iterable[str], known: Collection[str], computed: Collection[str] = ()) -> Names:
    """Look at names that were set in an inventory or by `-e`.

    `known` are the variables there are, `computed` those that follow from others and are not for setting. A foreign
    name is nobody's business, unless it begins as ours do or is nearly one of them.
    """
    errors: list[str] = []
    warnings: list[str] = []
    prefixes = {f"{name.partition('_')[0]}_" for name in known if "_" in name}
    for name in sorted(set(names)):
        if said := renamed(name):
            errors.append(said)
        elif name in computed:
            warnings.append(f"The variable {name} is computed; what is set is overridden or breaks the rest.")
        elif name not in known and not name.startswith(FOREIGN):
            near = difflib.get_close_matches(name, known, 1, NEAR)
            if near:
                warnings.append(f"There is no variable {name}. Did you mean {near[0]}?")
            elif f"{name.partition('_')[0]}_" in prefixes and "_" in name:
                warnings.append(f"There is no variable {name}; nothing reads it.")
    return Names(tuple(errors), tuple(warnings))
