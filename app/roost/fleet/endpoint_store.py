"""Where endpoints added by hand are kept: a Nomad variable that only the agent's job may read and write, or a file."""

from __future__ import annotations

from pathlib import Path

from roost.fleet.agent_variables import ENDPOINTS_ITEM, ENDPOINTS_VARIABLE
from roost.fleet.document_store import FileStore, Kind, NomadStore, ensure_exists
from roost.fleet.endpoint_list import EndpointDocument, parse_document
from roost.fleet.nomad_api import NomadClient

ENDPOINTS = Kind(
    "endpoints", ENDPOINTS_VARIABLE, ENDPOINTS_ITEM, parse_document, "Remove some: `roost endpoints remove NAME`."
)


def file_store(path: Path) -> FileStore[EndpointDocument]:
    """Return the store of a gateway without Nomad (`ROOST_ENDPOINTS_FILE`)."""
    return FileStore(path, ENDPOINTS)


def ensure_endpoints_variable(client: NomadClient, *, dry_run: bool = False) -> bool:
    """Make the variable unless it is there, so that the agent's template finds one; say whether it was missing."""
    return ensure_exists(NomadStore(client, ENDPOINTS), dry_run=dry_run)
