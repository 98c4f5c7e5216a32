"""`docs/models.md` from the catalogue: a table by tier, and for each model where its facts are from and what lacks.

Run as `python -m roost.models.document` in the repository; a test compares the page with what this writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from roost.hosts.tiers import BORDERS
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.schema import ROLES, ListedEntry

CATALOGUE = Path("group_vars/models.yaml")
HEAD = """# Models

Written from `group_vars/models.yaml` by `python -m roost.models.document > docs/models.md`; a test sees that it fits.

A model is named `NAME` or `NAME:QUANT` wherever one is asked for; without a quantisation the first of its list is
meant. `roost models list` shows what of this is on a machine, `roost models show NAME` everything that is known of one.
Others are added with `roost models add FILE|URL|hf:REPOSITORY[:QUANT]`.

Facts were looked up, not guessed. Sizes are those that a source gives; where there is none, and for every hash that is
not listed, the first fetch locks what the hub says. *Parameters* count every weight, *active* those that take part in
one token. *Engine* is a build of llama.cpp that is known to be new enough, not the first one. Preferences of roles
(0 to 100) are ours: they order candidates that fit, see `app/roost/models/choose.py`.
"""


def catalogue_page(catalogue: Catalogue) -> str:
    """Return the page."""
    lines = [HEAD]
    for border in BORDERS:
        entries = {name: entry for name, entry in catalogue.entries.items() if entry.tier == border.name}
        if entries:
            lines += [f"## {border.name}\n", *_table(entries), ""]
    lines += ["## Roles\n", "| role | models, the preferred first |", "|---|---|"]
    for role in ROLES:
        able = sorted((-entry.roles[role], name) for name, entry in catalogue.entries.items() if role in entry.roles)
        lines.append(f"| {role} | {', '.join(f'{name} {-preference}' for preference, name in able)} |")
    lines += ["", "## Where the facts come from\n"]
    for name, entry in catalogue.entries.items():
        lines += [f"**{name}**", "", *(f"- {fact}" for fact in entry.facts), ""]
    lines += ["## What could not be found\n", "| model | missing |", "|---|---|"]
    lines += [
        f"| {name} | {'<br>'.join(entry.missing)} |" for name, entry in catalogue.entries.items() if entry.missing
    ]
    lines += [f"| {name} (left out) | {reason} |" for name, reason in catalogue.left_out.items()]
    return "\n".join(lines) + "\n"


def _table(entries: dict[str, ListedEntry]) -> Iterator[str]:
    yield "| model | parameters, active | context | quantisations | licence | architecture, engine | roles |"
    yield "|---|---|---|---|---|---|---|"
    for name, entry in sorted(entries.items(), key=lambda item: item[1].parameters.total):
        active = entry.parameters.active
        amount = _count(entry.parameters.total) + (f", {_count(active)}" if active != entry.parameters.total else "")
        build = f", b{entry.engine}" if entry.engine else ""
        roles = ", ".join(f"{role} {preference}" for role, preference in entry.roles.items())
        more = " + projector" if entry.projector else ""
        quantisations = ", ".join(_quantisation(entry, key) for key in entry.quantisations) + more
        yield (
            f"| `{name}`<br>{entry.title} | {amount} | {entry.context_length:,} | {quantisations} | {entry.licence} "
            f"| {entry.architecture}{build} | {roles} |"
        )


def _quantisation(entry: ListedEntry, key: str) -> str:
    size = entry.quantisations[key].file.bytes
    return key if size is None else f"{key} ({size / 1e9:.2f} GB)"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


if __name__ == "__main__":
    sys.stdout.write(catalogue_page(load_catalogue(CATALOGUE, custom={})))
