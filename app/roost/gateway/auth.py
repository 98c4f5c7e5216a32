"""Who asks: keys, kept only as SHA-256, and what stops those who guess."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from roost.gateway.connection.fields import fields_of
from roost.gateway.errors import ApiError, expired_key, too_many_wrong_keys, unauthorized
from roost.gateway.penalties import Slowdown
from roost.gateway.secret_file import WatchedFile
from roost.ops.api_keys import ApiKey, KeyDocument, Tier, TierChange, TierLimits, first_keys, parse_document

DIGEST = re.compile(r"[0-9a-f]{64}")
CALLER = "roost.caller"  # where a request's scope holds its key
NO_LIMITS = TierLimits()
NO_CHANGE = TierChange()


def parse_digests(text: str) -> tuple[str, ...]:
    """Read one hex SHA-256 a line; empty lines and lines with # do not count.

    Raises:
        ValueError: a line is something else.
    """
    lines = [line.strip().lower() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    for line in wanted:
        if not DIGEST.fullmatch(line):
            raise ValueError("a line is no SHA-256 in hex")
    return tuple(wanted)


class Keys:
    """The accepted keys, read again when a file changes. Without a file no key is accepted.

    `digests_file` holds the administrator's first keys, `document_file` all others (`roost keys`).
    """

    def __init__(
        self,
        digests_file: Path | None,
        document_file: Path | None = None,
        tiers: Mapping[Tier, TierLimits] | None = None,
    ) -> None:
        nobody: tuple[str, ...] = ()
        self._digests = WatchedFile(digests_file, parse_digests, nobody) if digests_file else None
        self._document = WatchedFile(document_file, parse_document, KeyDocument()) if document_file else None
        self._configured = dict(tiers or {})
        self._seen: tuple[object, object] | None = None
        self._by_digest: dict[str, ApiKey] = {}
        self._by_name: dict[str, ApiKey] = {}
        self._tiers: dict[Tier, TierLimits] = {}
        self._changed: frozenset[Tier] = frozenset()
        self._cost_mode = ""

    def find(self, secret: str) -> ApiKey | None:
        """Return the key that this is, expired or not; None if it is none, or revoked.

        The time this takes says something of SHA-256 sums at most, which nobody can choose.
        """
        self._refresh()
        given = hashlib.sha256(secret.encode()).hexdigest()
        key = self._by_digest.get(given)
        if key is None:
            return None
        if hmac.compare_digest(key.sha256, given):
            return key
        still_good = key.previous_until is not None and datetime.now(UTC) < key.previous_until
        return key if still_good else None

    def named(self, name: str) -> ApiKey | None:
        """Return the key of that name, revoked ones too."""
        self._refresh()
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """Return the names of all keys."""
        self._refresh()
        return sorted(self._by_name)

    def limits(self, key: ApiKey) -> TierLimits:
        """Return what the key's tier allows now."""
        self._refresh()
        return self._tiers[key.tier]

    def known_limits(self, key: ApiKey) -> TierLimits:
        """Return what the key's tier allowed when a key was looked up last."""
        return self._tiers[key.tier]

    def tiers(self) -> dict[Tier, TierLimits]:
        """Return what each tier allows now."""
        self._refresh()
        return self._tiers

    def overridden(self) -> frozenset[Tier]:
        """Return the tiers whose numbers an administrator changed at run time."""
        self._refresh()
        return self._changed

    def cost_mode(self) -> str:
        """Return the cost mode that an administrator chose for all conversations, '' for none."""
        self._refresh()
        return self._cost_mode

    def _refresh(self) -> None:
        digests = self._digests.value() if self._digests else ()
        document = self._document.value() if self._document else None
        if self._seen is not None and self._seen[0] is digests and self._seen[1] is document:
            return
        self._seen = (digests, document)
        named = [*first_keys(digests), *(document.keys if document else ())]
        self._by_name = {key.name: key for key in named}
        self._by_digest = {key.previous_sha256: key for key in named if key.previous_sha256 and not key.revoked}
        self._by_digest |= {key.sha256: key for key in reversed(named) if not key.revoked}
        changes = document.tiers if document else {}
        self._tiers = {
            tier: changes.get(tier, NO_CHANGE).applied_to(self._configured.get(tier, NO_LIMITS)) for tier in Tier
        }
        self._changed = frozenset(changes)
        self._cost_mode = document.cost_mode if document else ""


def bearer(authorization: str) -> str:
    """Return the key of an Authorization header, or nothing."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def key_of(headers: Mapping[str, str]) -> str:
    """Return the key of a request: as OpenAI's clients send it, or as Anthropic's do."""
    return bearer(headers.get("authorization", "")) or headers.get("x-api-key", "").strip()


class RequireKey:
    """ASGI middleware: everything needs a key but what `is_public(path)` names; puts the key into the scope.

    Wrong keys are answered later and later per client address. A right key always passes: an address may be shared,
    and a key has 256 bits.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        is_public: Callable[[str], bool],
        on_wrong: Callable[[], None] = lambda: None,
        slowdown: Slowdown | None = None,
    ) -> None:
        self._app = app
        self._keys = keys
        self._is_public = is_public
        self._on_wrong = on_wrong
        self._slowdown = slowdown or Slowdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401; anything but HTTP is not served."""
        if scope["type"] not in {"http", "lifespan"}:
            return
        if scope["type"] == "http" and not self._is_public(scope["path"]):
            secret = key_of(fields_of(scope))
            key = self._keys.find(secret) if secret else None
            if key is None or (key.expires is not None and key.expires <= datetime.now(UTC)):
                await self._refuse(scope, receive, send, expired=key is not None)
                return
            scope[CALLER] = key
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, *, expired: bool) -> None:
        self._on_wrong()
        client = scope.get("client")
        penalty = await self._slowdown.hold(str(client[0]) if client else "")
        error: ApiError = expired_key() if expired else unauthorized()
        if penalty.retry_after_s:
            error = too_many_wrong_keys(penalty.retry_after_s)
        await error.response()(scope, receive, send)


def caller_of(scope: Scope) -> ApiKey:
    """Return the key that a request was sent with; only behind `RequireKey`."""
    key: ApiKey = scope[CALLER]
    return key
