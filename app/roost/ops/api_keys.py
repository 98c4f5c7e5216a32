"""API keys as data: what a key may do, the document that holds them all, and its changes. Pure but for `new_secret`.

The command line writes the document, the gateway reads it. A key itself is shown once and never kept: only its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from roost.ops.errors import NOT_FOUND, USAGE, RoostError
from roost.ops.validation import in_words

PREFIX = "roost-"
SECRET_BYTES = 32
FIRST_KEY = "admin"  # the key in /etc/roost/secrets/api-key; further ones of that file are admin-2, admin-3 ...
RESERVED = re.compile(r"admin(-[0-9]+)?")
DIGEST = re.compile(r"[0-9a-f]{64}")
AGE = re.compile(r"([0-9]{1,6})([hdw])")
AGE_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[int, Field(ge=0, le=10**12)]
Money = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Role(StrEnum):
    """What a key may do: everything; use models; look at models and metrics."""

    ADMIN = "admin"
    USER = "user"
    READ_ONLY = "read-only"


class Tier(StrEnum):
    """How much of the fleet a key may take: work that must not wait, people and programs, work that can wait."""

    CRITICAL = "critical"
    STANDARD = "standard"
    BULK = "bulk"


class Budget(BaseModel):
    """How much a key may use in a UTC day or month: tokens, and cost in the site's currency. 0 sets no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_day: Amount = 0
    tokens_per_month: Amount = 0
    cost_per_day: Money = 0.0
    cost_per_month: Money = 0.0


class TierLimits(BaseModel):
    """How fast and how many at once, for each key of a tier. 0 sets no bound.

    `requests` and `tokens` are per minute, and also what may be used at once after a pause. `waiting` requests may
    queue for one of the `concurrent` places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Amount = 0
    tokens: Amount = 0
    concurrent: Amount = 0
    waiting: Amount = 0


class TierChange(BaseModel):
    """The numbers of a tier that an administrator overrides at run time; None leaves the configured one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: Amount | None = None
    tokens: Amount | None = None
    concurrent: Amount | None = None
    waiting: Amount | None = None

    def applied_to(self, limits: TierLimits) -> TierLimits:
        """Return the limits that hold."""
        return limits.model_copy(update=self.model_dump(exclude_none=True))


class ApiKey(BaseModel):
    """One key. `models` are names of models or slots, empty for all; `previous_sha256` is good until its time."""

    model_config = ConfigDict(frozen=True)

    name: Name
    sha256: Digest
    role: Role = Role.USER
    models: tuple[str, ...] = ()
    tier: Tier = Tier.STANDARD
    owner: str = Field(default="", max_length=200)
    budget: Budget = Budget()
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    previous_sha256: Digest | None = None
    previous_until: AwareDatetime | None = None

    def may_use(self, model: str, slot: str) -> bool:
        """Say whether the key may use a model that serves a slot."""
        return not self.models or model in self.models or slot in self.models

    def state(self, now: datetime) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and self.expires <= now else "active"


class KeyDocument(BaseModel):
    """All keys, and what an administrator changed at run time: numbers of tiers, the agent's cost mode."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()
    tiers: dict[Tier, TierChange] = Field(default_factory=dict)
    cost_mode: str = ""
    """A name of `context.budget.CostMode`; empty: what the files say."""

    def find(self, name: str) -> ApiKey | None:
        """Return the key of that name."""
        return next((key for key in self.keys if key.name == name), None)

    def text(self) -> str:
        """Return the document as JSON; what has its default is left out, a Nomad variable holds 64 KiB."""
        return self.model_dump_json(exclude_defaults=True)


Change = Callable[[KeyDocument], KeyDocument]


def parse_document(text: str) -> KeyDocument:
    """Read a document; nothing at all is one without keys.

    Raises:
        ValueError: it is no such document.
    """
    return KeyDocument.model_validate_json(text) if text.strip() else KeyDocument()


def new_secret() -> str:
    """Return a new key: 256 bits nobody can guess."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> str:
    """Return what is kept of a key: SHA-256 in hex. A key is random, so salt and stretching would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


def first_keys(digests: Iterable[str]) -> tuple[ApiKey, ...]:
    """Return the administrator's keys for a file that holds digests only."""
    return tuple(
        ApiKey(
            name=FIRST_KEY if number == 1 else f"{FIRST_KEY}-{number}",
            sha256=digest,
            role=Role.ADMIN,
            tier=Tier.CRITICAL,
        )
        for number, digest in enumerate(digests, 1)
    )


def parse_expiry(text: str, now: datetime) -> datetime | None:
    """Read `30d`, `12h`, `2w`, a date, or `never`.

    Raises:
        RoostError: it is none of them, or lies in the past.
    """
    if text == "never":
        return None
    try:
        if found := AGE.fullmatch(text):
            when = (now + int(found[1]) * AGE_UNITS[found[2]]).replace(microsecond=0)
        else:
            when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise RoostError(
            f"{text!r} is no time that a key could expire at.",
            fix="Write 12h, 30d, 2w, 2030-12-31, or never.",
            exit_code=USAGE,
        ) from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when <= now:
        raise RoostError(f"{text} is in the past.", fix="Write a later time, or revoke the key.", exit_code=USAGE)
    return when


# --- Changes: document in, document out --------------------------------------------------------------------------


def with_key(document: KeyDocument, key: ApiKey) -> KeyDocument:
    """Add a key.

    Raises:
        RoostError: the name is taken or reserved.
    """
    if RESERVED.fullmatch(key.name):
        raise RoostError(
            f"The name {key.name!r} is that of the first key.", fix="Choose another name.", exit_code=USAGE
        )
    if known := document.find(key.name):
        what = "was used by a revoked key" if known.revoked else "is taken"
        raise RoostError(
            f"The name {key.name!r} {what}.",
            fix=f"Choose another name, or make a new key for it with `roost keys rotate {key.name}`."
            if not known.revoked
            else f"Choose another name, or free this one with `roost keys revoke {key.name} --purge`.",
            exit_code=USAGE,
        )
    return document.model_copy(update={"keys": (*document.keys, key)})


def without_key(document: KeyDocument, name: str, now: datetime, *, purge: bool) -> KeyDocument:
    """Revoke a key; with `purge` forget it, so that its name is free again.

    Raises:
        RoostError: there is no such key.
    """
    key = required(document, name)
    if purge:
        return document.model_copy(update={"keys": tuple(k for k in document.keys if k.name != name)})
    if key.revoked:
        return document
    return _replace(document, key, {"revoked": now, "previous_sha256": None, "previous_until": None})


def rotated(document: KeyDocument, name: str, sha256: str, now: datetime, grace: timedelta) -> KeyDocument:
    """Give a key a new secret; the old one stays good for `grace`.

    Raises:
        RoostError: there is no such key, or it is revoked.
    """
    key = required(document, name)
    if key.revoked:
        raise RoostError(f"The key {name!r} is revoked.", fix="Make another one with `roost keys add`.")
    kept = {"previous_sha256": key.sha256, "previous_until": now + grace} if grace else {}
    cleared = {"previous_sha256": None, "previous_until": None}
    return _replace(document, key, {**cleared, **kept, "sha256": sha256})


def changed(document: KeyDocument, name: str, update: dict[str, object]) -> KeyDocument:
    """Change fields of a key; `budget` is merged, the others are replaced.

    Raises:
        RoostError: there is no such key, or a value is not allowed.
    """
    key = required(document, name)
    budget = update.get("budget")
    if isinstance(budget, dict):
        update = {**update, "budget": {**key.budget.model_dump(), **budget}}
    return _replace(document, key, update)


def with_tier(document: KeyDocument, tier: Tier, change: TierChange | None) -> KeyDocument:
    """Override numbers of a tier beside those overridden before, or go back to the configured ones with None."""
    tiers = {name: value for name, value in document.tiers.items() if name != tier}
    if change is not None:
        before = document.tiers.get(tier, TierChange())
        tiers[tier] = before.model_copy(update=change.model_dump(exclude_none=True))
    return document.model_copy(update={"tiers": tiers})


def required(document: KeyDocument, name: str) -> ApiKey:
    """Return the key of that name.

    Raises:
        RoostError: there is none.
    """
    if key := document.find(name):
        return key
    if RESERVED.fullmatch(name):
        raise RoostError(
            f"The key {name!r} comes from the file secrets/api-key and is not changed here.",
            fix="To replace it, delete /etc/roost/secrets/api-key and run ./bootstrap.sh.",
        )
    raise RoostError(f"There is no key named {name!r}.", fix="See `roost keys list`.", exit_code=NOT_FOUND)


def _replace(document: KeyDocument, key: ApiKey, update: dict[str, object]) -> KeyDocument:
    new = made_key(key.model_dump() | update)
    return document.model_copy(update={"keys": tuple(new if k.name == key.name else k for k in document.keys)})


def made_key(fields: dict[str, object]) -> ApiKey:
    """Make a key from its fields.

    Raises:
        RoostError: a value is not allowed.
    """
    try:
        return ApiKey.model_validate(fields)
    except ValidationError as error:
        raise RoostError(f"The key is not valid: {in_words(error)}.", fix="Correct that.", exit_code=USAGE) from None
