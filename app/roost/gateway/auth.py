"""Who may use the API: keys, kept only as SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from roost.gateway.errors import unauthorized
from roost.gateway.secret_file import WatchedFile

DIGEST = re.compile(r"[0-9a-f]{64}")


def parse_digests(text: str) -> tuple[bytes, ...]:
    """Read one hex SHA-256 a line; empty lines and lines with # do not count.

    Raises:
        ValueError: a line is something else.
    """
    lines = [line.strip().lower() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    for line in wanted:
        if not DIGEST.fullmatch(line):
            raise ValueError("a line is no SHA-256 in hex")
    return tuple(bytes.fromhex(line) for line in wanted)


class Keys:
    """The accepted keys, read again when the file changes. Without a file no key is accepted."""

    def __init__(self, path: Path | None) -> None:
        nobody: tuple[bytes, ...] = ()
        self._file = WatchedFile(path, parse_digests, nobody) if path else None

    def accepts(self, key: str) -> bool:
        """Say whether `key` is one of them, in a time that does not depend on which."""
        digests = self._file.value() if self._file else ()
        given = hashlib.sha256(key.encode()).digest()
        matches = [hmac.compare_digest(given, digest) for digest in digests]
        return any(matches)


def bearer(authorization: str) -> str:
    """Return the key of an Authorization header, or nothing."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class RequireKey:
    """ASGI middleware: everything needs a key but what `is_public(path)` names."""

    def __init__(self, app: ASGIApp, *, keys: Keys, is_public: Callable[[str], bool]) -> None:
        self._app = app
        self._keys = keys
        self._is_public = is_public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401; anything but HTTP is not served."""
        if scope["type"] not in {"http", "lifespan"}:
            return
        if scope["type"] == "http" and not self._is_public(scope["path"]):
            key = bearer(Headers(scope=scope).get("authorization", ""))
            if not key or not self._keys.accepts(key):
                await unauthorized().response()(scope, receive, send)
                return
        await self._app(scope, receive, send)
