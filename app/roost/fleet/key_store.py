"""Where the keys of the API are kept: a Nomad variable that only the agent's job may read, or a file."""

from __future__ import annotations

from pathlib import Path

from roost.fleet.agent_jobs import KEYS_ITEM, KEYS_VARIABLE
from roost.fleet.document_store import ABSENT, ConflictError, FileStore, Kind, NomadStore, Store, ensure_exists, update
from roost.fleet.nomad_api import NomadClient
from roost.ops.api_keys import KeyDocument, parse_document

__all__ = ["ABSENT", "ConflictError", "FileKeyStore", "KeyStore", "NomadKeyStore", "ensure_variable_exists", "update"]

KEYS = Kind("keys", KEYS_VARIABLE, KEYS_ITEM, parse_document, "Forget revoked ones: `roost keys revoke NAME --purge`.")
KeyStore = Store[KeyDocument]


class NomadKeyStore(NomadStore[KeyDocument]):
    """The keys as an item of a Nomad variable."""

    def __init__(self, client: NomadClient) -> None:
        super().__init__(client, KEYS)


class FileKeyStore(FileStore[KeyDocument]):
    """The keys as a file, for a gateway without Nomad (`ROOST_KEYS_FILE`)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, KEYS)


def ensure_variable_exists(client: NomadClient, *, dry_run: bool = False) -> bool:
    """Make the variable unless it is there, so that the agent's template finds one; say whether it was missing."""
    return ensure_exists(NomadKeyStore(client), dry_run=dry_run)
