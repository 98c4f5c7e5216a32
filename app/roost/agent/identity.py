"""Which hub this is, for the workers of a key: a name that no other hub, and no other key of this one, can say.

A worker gives a hub the folders that its user named for it. Names of keys are no proof: every hub may have an `admin`.
So a hub has a secret, and the identity that it gives the holder of a key is HMAC-SHA256 of the key's name with it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from roost.agent.channel.wire import HUB_ID_DIGITS, HUB_PATH
from roost.gateway.errors import ApiError
from roost.ops.files import sync_folder, write_all

FILE = "identity"
SECRET_BYTES = 32
SECRET = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}")


class HubIdentity:
    """The identity of the hub whose state is in `folder`; made when it is first asked for, and kept with the state."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def of(self, owner: str) -> str:
        """Return what this hub is called before a key: 32 hex digits.

        Raises:
            OSError: the disk does not take or give the secret.
            ValueError: the file does not hold one: it is not replaced, for workers would lose their folders.
        """
        secret = self._secret()
        return hmac.new(bytes.fromhex(secret), owner.encode(), hashlib.sha256).hexdigest()[:HUB_ID_DIGITS]

    def _secret(self) -> str:
        with suppress(FileNotFoundError):
            return _checked(self._file)
        temporary = self._file.with_name(f".{FILE}.{secrets.token_hex(8)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, secrets.token_hex(SECRET_BYTES).encode())
            os.fsync(handle)
            with suppress(FileExistsError):  # another process was first: its secret holds
                os.link(temporary, self._file)
            sync_folder(self._file.parent)  # else another one is made after a power cut, and every worker refuses it
        finally:
            os.close(handle)
            temporary.unlink()
        return _checked(self._file)


def _checked(file: Path) -> str:
    text = file.read_text(errors="replace").strip()
    if not SECRET.fullmatch(text):
        raise ValueError(f"{file} does not hold the secret of this hub")
    return text


def identity_routes(identity: HubIdentity, owner_of: Callable[[Request], str]) -> APIRouter:
    """Return the route at `HUB_PATH`."""
    router = APIRouter()

    @router.get(HUB_PATH, summary="Say which hub this is, for workers of the key that asks")
    async def which(request: Request) -> JSONResponse:
        owner = owner_of(request)
        try:
            found = identity.of(owner)
        except (OSError, ValueError) as error:
            raise ApiError(507, f"The hub's identity: {error}.", kind="server_error", code="storage") from None
        return JSONResponse({"object": "hub", "id": found, "owner": owner})

    return router
