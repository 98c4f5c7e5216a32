"""Nomad's variables that jobs of this site read: stored before a job is changed, narrowed when none reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from roost.fleet.agent_jobs import KEYS_VARIABLE, ROUTE_VARIABLE
from roost.fleet.agent_variables import ENDPOINTS_VARIABLE
from roost.fleet.endpoint_store import ensure_endpoints_variable
from roost.fleet.jobs import MONITORING_JOB, SEARCH_JOB
from roost.fleet.key_store import ensure_variable_exists
from roost.fleet.monitoring.job import ensure_watch_key
from roost.fleet.nomad_api import NomadClient
from roost.fleet.nomad_setup import narrow_variable, widen_variable
from roost.fleet.route_store import ensure_variable_exists as ensure_route_variable_exists
from roost.fleet.search.job import ensure_search_variable
from roost.fleet.site_wish import SiteWish

TO_BE_MADE = ("certificate to be made", "key to be made")
"""Stand for a certificate and its key in a check before the run that makes them."""


def store_variables(
    client: NomadClient, secrets: Mapping[str, Mapping[str, str]], *, agent: bool, to_be_made: bool, dry_run: bool
) -> list[str]:
    """Store what jobs will read beside what they read, and places for keys, a router and endpoints; a line each.

    Those places stay once they are there. With `to_be_made` some of it is `TO_BE_MADE`, and not known yet.

    Raises:
        RoostError: Nomad does not answer, or refuses.
    """
    lines: list[str] = []
    for path, items in secrets.items():
        unknown = to_be_made and TO_BE_MADE[0] in items.values()
        if unknown or widen_variable(client, path, items, dry_run=dry_run):
            lines.append(f"{path}: new secrets")
    if not agent:
        return lines
    if ensure_variable_exists(client, dry_run=dry_run):
        lines.append(f"{KEYS_VARIABLE}: new, for the API's keys")
    if ensure_route_variable_exists(client, dry_run=dry_run):
        lines.append(f"{ROUTE_VARIABLE}: new, for a trained router")
    if ensure_endpoints_variable(client, dry_run=dry_run):
        lines.append(f"{ENDPOINTS_VARIABLE}: new, for endpoints added by hand")
    return lines


def own_secrets(client: NomadClient, wish: SiteWish, *, dry_run: bool) -> list[str]:
    """Have a key of Prometheus' own, and what only SearXNG reads, where they are wanted; a line each that is new."""
    lines = []
    if wish.monitoring and ensure_watch_key(client, dry_run=dry_run):
        lines.append(f"{MONITORING_JOB}: a key of its own, read-only")
    if wish.search and ensure_search_variable(client, wish.search, bind=wish.bind, dry_run=dry_run):
        lines.append(f"{SEARCH_JOB}: new settings and secrets")
    return lines


def narrowed(
    client: NomadClient, secrets: Mapping[str, Mapping[str, str]], kept: Collection[str], *, dry_run: bool
) -> tuple[list[str], bool]:
    """Remove what no job reads any more; return of which variables, and whether some stays for the jobs in `kept`."""
    keep = {f"nomad/jobs/{job}" for job in kept}
    less = [p for p, items in secrets.items() if p not in keep and narrow_variable(client, p, items, dry_run=dry_run)]
    return less, any(narrow_variable(client, p, items, dry_run=True) for p, items in secrets.items() if p in keep)
