"""Fetching one model, as most tests do; the product fetches several at a time."""

from __future__ import annotations

from roost.models.fetch import Outcome, Places, ensure_models
from roost.models.schema import Download


def ensure_model(name: str, model: Download, places: Places, *, dry_run: bool = False, rehash: bool = False) -> Outcome:
    """Have one model's file at its place; see `ensure_models`."""
    return ensure_models({name: model}, places, dry_run=dry_run, rehash=rehash)[0]
