"""The header fields of a request, read once."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

FIELDS = "roost.fields"  # where a request's scope holds them


def fields_of(scope: Scope) -> Mapping[str, str]:
    """Return the header fields by their lower-case name; of a field that came twice the first."""
    raw = scope["headers"]
    kept: tuple[object, Mapping[str, str]] | None = scope.get(FIELDS)
    if kept and kept[0] is raw:  # a copy of the scope may have other ones
        return kept[1]
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(raw)}
    scope[FIELDS] = (raw, found)
    return found
