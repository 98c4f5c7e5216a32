"""The header fields of a request, read once."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

FIELDS = "roost.fields"  # where a request's scope holds them


def fields_of(scope: Scope) -> Mapping[str, str]:
    """Return the header fields by their lower-case name; of a field that came twice the first."""
    found: Mapping[str, str] | None = scope.get(FIELDS)
    if found is None:
        pairs = reversed(scope["headers"])
        found = scope[FIELDS] = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
    return found
